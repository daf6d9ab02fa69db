//! A process that answers each line with a line.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// A process, which ends with this.
pub(crate) struct LineProcess {
    pub(crate) child: Child,
    lines_in: ChildStdin,
    lines_out: BufReader<ChildStdout>,
}

impl LineProcess {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines_in = child.stdin.take().unwrap();
        let lines_out = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines_in, lines_out }
    }

    pub(crate) fn read(&mut self) -> String {
        let mut line = String::new();
        self.lines_out.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "a worker ended before it answered");
        line.trim_end().to_owned()
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        writeln!(self.lines_in, "{line}").unwrap();
        self.lines_in.flush().unwrap();
        self.read()
    }
}

impl Drop for LineProcess {
    fn drop(&mut self) {
        // One that has ended already was told by its missing answer.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
