// Runs sharp as a worker on one thread: sharp.mjs PACKAGES default|standard-tables
//
// `worker.py` describes the protocol and `tools.py` describes the jobs. PACKAGES is the folder that contains
// node_modules. With `default`, sharp computes Huffman tables for each JPEG, which takes time and makes the
// JPEG smaller. With `standard-tables`, sharp uses the standard tables, as the other tools do. sharp's cache
// of results is off.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [packages, variant] = process.argv.slice(2);
const sharp = createRequire(`${packages}/`)("sharp");
sharp.concurrency(1);
sharp.cache(false);

const JPEG = { quality: 95, chromaSubsampling: "4:4:4", optimiseCoding: variant !== "standard-tables" };
const jobs = new Map();

const runJob = (job) => {
    const { data, width, height, output } = jobs.get(job);
    const image = sharp(data).resize(width, height, { fit: "fill" });
    return (output === "jpeg" ? image.jpeg(JPEG) : image.removeAlpha().raw()).toBuffer();
};

/** Returns the CPU time of this process, user and system, in nanoseconds. */
const cpuTime = () => {
    const { user, system } = process.cpuUsage();
    return (user + system) * 1000;
};

const commands = {
    load(job, file, width, height, output) {
        jobs.set(job, { data: readFileSync(file), width: Number(width), height: Number(height), output });
        return "done";
    },
    async run(job, times) {
        const [begin, cpuBefore, durations] = [process.hrtime.bigint(), cpuTime(), []];
        for (let repetition = 0; repetition < Number(times); repetition += 1) {
            const start = process.hrtime.bigint();
            await runJob(job);
            durations.push(process.hrtime.bigint() - start);
        }
        return [cpuTime() - cpuBefore, process.hrtime.bigint() - begin, ...durations].join(" ");
    },
    async result(job, file) {
        writeFileSync(file, await runJob(job));
        return "done";
    },
};

const { sharp: version, vips } = sharp.versions;
console.log(`ready sharp ${version} with libvips ${vips}`);
for await (const line of createInterface({ input: process.stdin })) {
    const [command, ...rest] = line.split(" ");
    console.log(await commands[command](...rest));
}
