// sharp as a worker: see worker.py.
//
//     sharp_worker.mjs FOLDER default|standard-tables
//
// FOLDER holds node_modules. By itself sharp computes Huffman tables for each JPEG, which makes it smaller
// and takes time; `standard-tables` leaves that out, as everybody else here does. The cache is off.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [folder, variant] = process.argv.slice(2);
const sharp = createRequire(`${folder}/`)("sharp");
sharp.concurrency(1);
sharp.cache(false);

const JPEG = { quality: 95, chromaSubsampling: "4:4:4", optimiseCoding: variant !== "standard-tables" };

const loaded = new Map();
const resize = (file) => {
    const { data, width, height } = loaded.get(file);
    return sharp(data).resize(width, height, { fit: "fill" });
};
const encode = (file) => resize(file).jpeg(JPEG).toBuffer();

/** User and system time of this process in nanoseconds. */
const cpu = () => {
    const { user, system } = process.cpuUsage();
    return (user + system) * 1000;
};

const run = async (file, times) => {
    const [wallBefore, cpuBefore] = [process.hrtime.bigint(), cpu()];
    for (let time = 0; time < times; time += 1) await encode(file);
    return `${cpu() - cpuBefore} ${process.hrtime.bigint() - wallBefore}`;
};

const answer = async ([command, file, ...rest]) => {
    switch (command) {
        case "load": {
            const [width, height] = rest.map(Number);
            loaded.set(file, { data: readFileSync(file), width, height });
            return "done";
        }
        case "run":
            return run(file, Number(rest[0]));
        case "jpeg":
            writeFileSync(rest[0], await encode(file));
            return "done";
        case "pixels":
            writeFileSync(rest[0], await resize(file).removeAlpha().raw().toBuffer());
            return "done";
        default:
            throw new Error(`not a command: ${command}`);
    }
};

const { sharp: version, vips } = sharp.versions;
console.log(`ready sharp ${version} with libvips ${vips}`);
for await (const line of createInterface({ input: process.stdin })) console.log(await answer(line.split(" ")));
