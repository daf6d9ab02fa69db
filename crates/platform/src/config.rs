//! This module parses flags and environment variables, and reports all problems at once.

use std::{
    collections::HashSet,
    error::Error as _,
    ffi::OsString,
    io::{self, Write},
    time::Duration,
};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command,
    builder::{Resettable, ValueParser},
    error::{ContextKind, ContextValue, Error, ErrorKind},
};

/// A configuration whose values must satisfy rules that cannot be checked while each value is parsed.
pub trait Validate {
    /// Returns one sentence for each rule that this configuration breaks. The sentence names the flags.
    fn problems(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Returns the settings that an empty command line gives. Environment variables are ignored.
///
/// Implementations of [`Default`] call this function, so that each default is stated only once, in the
/// attribute of its flag.
///
/// # Panics
/// Panics if a setting is required or its default is not a valid value.
#[expect(clippy::expect_used, reason = "wrong defaults are a mistake in the code, and tests parse them")]
pub fn parse_defaults<T: Args>() -> T {
    let command = T::augment_args(Command::new("defaults")).mut_args(|arg| arg.env(Resettable::Reset));
    let matches = command.try_get_matches_from(["defaults"]).expect("no setting is required");
    T::from_arg_matches(&matches).expect("every default is valid")
}

/// Exit status of a program whose configuration is invalid (`EX_USAGE`).
pub const EXIT_USAGE: i32 = 64;

/// Parses the flags and environment variables of this process, or prints a text and exits.
///
/// For `--help` and `--version`, the text is the requested one, and the exit status is 0. For an invalid
/// configuration, the text lists all problems, and the exit status is 64. Parsing opens no port and makes no
/// call to Google Cloud.
pub fn parse_or_exit<C: clap::Parser + Validate>() -> C {
    match parse_from(std::env::args_os()) {
        Ok(configuration) => configuration,
        Err((text, status)) => {
            // If the text cannot be written, the exit status still reports the problem.
            let _ = match status {
                0 => io::stdout().write_all(text.as_bytes()),
                _ => io::stderr().write_all(text.as_bytes()),
            };
            std::process::exit(status)
        }
    }
}

/// Parses `args` and the environment variables. The first element of `args` is the name of the program.
///
/// # Errors
/// Returns the text to print and the exit status if the configuration is invalid, or if the arguments include
/// `--help` or `--version`. For an invalid configuration, the text has one line per problem, with the flag
/// and its environment variable, and a last line that refers to `--help`.
pub fn parse_from<C: clap::Parser + Validate>(
    args: impl IntoIterator<Item = OsString>,
) -> Result<C, (String, i32)> {
    let mut parser = LenientParser {
        command: C::command(),
        args: args.into_iter().collect(),
        problems: Vec::new(),
        relaxed_ids: HashSet::new(),
    };
    let matches = loop {
        match parser.command.clone().try_get_matches_from(&parser.args) {
            Ok(matches) => break Some(matches),
            Err(error) if error.exit_code() == 0 => return Err((error.render().to_string(), 0)),
            Err(error) => {
                if !parser.record_and_relax(&error) {
                    break None;
                }
            }
        }
    };
    let LenientParser { mut problems, .. } = parser;
    if let (Some(matches), true) = (matches, problems.is_empty()) {
        match validate::<C>(&matches) {
            Ok(configuration) => return Ok(configuration),
            Err(broken_rules) => problems = broken_rules,
        }
    }
    let mut text = problems.join("\n");
    text.push_str("\ntry '--help'\n");
    Err((text, EXIT_USAGE))
}

fn validate<C: clap::Parser + Validate>(matches: &ArgMatches) -> Result<C, Vec<String>> {
    let configuration = C::from_arg_matches(matches).map_err(|error| vec![first_line(&error)])?;
    let problems = configuration.problems();
    if problems.is_empty() { Ok(configuration) } else { Err(problems) }
}

/// A parser that finds all problems in the arguments and the environment variables.
///
/// clap stops at the first problem. This parser records that problem, relaxes or removes the argument that
/// caused it, and parses again, until it finds no more problems. A relaxed argument is optional and accepts
/// any value. An unknown argument is removed.
struct LenientParser {
    command: Command,
    args: Vec<OsString>,
    problems: Vec<String>,
    /// Ids of the relaxed arguments. Each argument is relaxed at most once, so that the repeated parsing
    /// ends.
    relaxed_ids: HashSet<String>,
}

impl LenientParser {
    /// Records the problem that `error` describes, and relaxes or removes the argument that caused it.
    /// Returns true if parsing again can find more problems.
    fn record_and_relax(&mut self, error: &Error) -> bool {
        let arg_names = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(arg_name)) => vec![arg_name.clone()],
            Some(ContextValue::Strings(arg_names)) => arg_names.clone(),
            _ => Vec::new(),
        };
        match error.kind() {
            ErrorKind::UnknownArgument => {
                self.problems.push(first_line(error));
                arg_names.iter().any(|arg_name| self.remove_unknown(arg_name))
            }
            ErrorKind::MissingRequiredArgument => {
                let mut any_relaxed = false;
                for arg_name in &arg_names {
                    match self.find_arg(arg_name) {
                        Some(arg) => {
                            self.problems.push(format!("{}: a value is needed", flag_and_variable(&arg)));
                            any_relaxed |= self.relax(&arg);
                        }
                        None => self.problems.push(format!("{arg_name}: a value is needed")),
                    }
                }
                any_relaxed
            }
            ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
                match arg_names.first().and_then(|arg_name| self.find_arg(arg_name)) {
                    Some(arg) => {
                        let problem = describe_invalid_value(error);
                        self.problems.push(format!("{}: {problem}", flag_and_variable(&arg)));
                        self.relax(&arg)
                    }
                    None => {
                        self.problems.push(first_line(error));
                        false
                    }
                }
            }
            ErrorKind::TooManyValues => {
                self.problems.push(first_line(error));
                let arg = arg_names.first().and_then(|arg_name| self.find_arg(arg_name));
                arg.is_some_and(|arg| self.relax(&arg))
            }
            _ => {
                self.problems.push(first_line(error));
                false
            }
        }
    }

    /// Returns the argument that clap's errors call `arg_name`, such as `--port <PORT>`.
    ///
    /// The search uses a built copy of the command, because only the arguments of a built command have the
    /// names that errors contain.
    fn find_arg(&self, arg_name: &str) -> Option<Arg> {
        let mut built_command = self.command.clone();
        built_command.build();
        built_command.get_arguments().find(|arg| arg.to_string() == arg_name).cloned()
    }

    /// Relaxes `arg`, so that it is optional and accepts any value or no value. Returns false if `arg` was
    /// relaxed before.
    fn relax(&mut self, arg: &Arg) -> bool {
        if !self.relaxed_ids.insert(arg.get_id().to_string()) {
            return false;
        }
        let is_positional = arg.is_positional();
        self.command = std::mem::take(&mut self.command).mut_arg(arg.get_id(), |arg| {
            let arg = arg.required(false).value_parser(ValueParser::os_string());
            if is_positional { arg } else { arg.action(ArgAction::Append).num_args(0..=1) }
        });
        true
    }

    /// Removes the unknown flag `flag` from the arguments. If the next argument looks like the value of the
    /// flag, that argument is removed, too. Returns false if the arguments do not contain the flag.
    fn remove_unknown(&mut self, flag: &str) -> bool {
        let flag_with_equals = format!("{flag}=");
        let Some(position) = self.args.iter().skip(1).position(|arg| {
            arg == flag || arg.to_str().is_some_and(|arg| arg.starts_with(&flag_with_equals))
        }) else {
            return false;
        };
        // `position` does not count the name of the program.
        let removed = self.args.remove(position + 1);
        let accepts_positionals = self.command.get_positionals().next().is_some();
        let is_value = |arg: &OsString| !arg.to_string_lossy().starts_with('-');
        if removed.to_string_lossy().starts_with('-')
            && removed == flag
            && !accepts_positionals
            && self.args.get(position + 1).is_some_and(is_value)
        {
            self.args.remove(position + 1);
        }
        true
    }
}

/// Returns the flag and the environment variable of an argument, such as `--port / PORT`.
fn flag_and_variable(arg: &Arg) -> String {
    let flag = match arg.get_long() {
        Some(long) => format!("--{long}"),
        None => arg.to_string(),
    };
    match arg.get_env() {
        Some(variable) => format!("{flag} / {}", variable.to_string_lossy()),
        None => flag,
    }
}

/// Describes the invalid value that `error` reports. The value is quoted, and its control characters are
/// escaped.
fn describe_invalid_value(error: &Error) -> String {
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) if !value.is_empty() => value,
        _ => return "a value is needed".to_owned(),
    };
    if let Some(source) = error.source() {
        return format!("{value:?}: {source}");
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(choices)) if !choices.is_empty() => {
            format!("{value:?} is none of {}", choices.join(", "))
        }
        _ => format!("{value:?} is not a valid value"),
    }
}

/// Returns the first line of clap's message, without the prefix `error: `.
fn first_line(error: &Error) -> String {
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Parses a duration in seconds, such as `30` or `2.5`. clap arguments use this function as their
/// `value_parser`.
///
/// # Errors
/// Returns a sentence with the expected syntax if `text` is not a number of seconds.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    text.trim()
        .parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "expected seconds, as in 30 or 2.5".to_owned())
}

/// Parses a size in bytes, such as `20MiB`, `512KiB` or `1048576`. clap arguments use this function as their
/// `value_parser`.
///
/// # Errors
/// Returns a sentence with the expected syntax if `text` is not a size, or a sentence about the limit if the
/// size is too large for this machine.
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    let expected = || "expected bytes, as in 20MiB, 512KiB or 1048576".to_owned();
    let text = text.trim();
    let digit_count = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digit_count);
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(expected()),
    };
    if number.is_empty() {
        return Err(expected());
    }
    number
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| "more bytes than this machine can address".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::telemetry::{LogArgs, LogFormat};

    #[derive(Debug, Parser)]
    #[command(name = "service", version = "1.2.3")]
    struct Config {
        #[arg(long, env = "TEST_CONFIG_PORT", default_value_t = 8000)]
        port: u16,
        #[arg(long, env = "TEST_CONFIG_BUCKET")]
        bucket: String,
        #[arg(long, value_parser = parse_seconds, default_value = "30")]
        timeout: Duration,
        #[arg(long, value_parser = parse_bytes, default_value = "20MiB")]
        max_body: usize,
        /// cargo sets this variable for every test. The value is the name of the package, which is no valid
        /// number.
        #[arg(long, env = "CARGO_PKG_NAME", hide_env = true)]
        number: Option<u32>,
        #[arg(long)]
        verbose: bool,
        #[command(flatten)]
        log: LogArgs,
    }

    impl Validate for Config {
        fn problems(&self) -> Vec<String> {
            let mut problems = Vec::new();
            if self.timeout.is_zero() {
                problems.push("--timeout: must be more than 0".to_owned());
            }
            if self.max_body < 1024 && self.port == 1 {
                problems.push("--max-body: too little for --port 1".to_owned());
            }
            problems
        }
    }

    fn parse(args: &str) -> Result<Config, (String, i32)> {
        parse_from(["service"].into_iter().chain(args.split_whitespace()).map(OsString::from))
    }

    fn error_text(args: &str) -> String {
        let (text, status) = parse(args).unwrap_err();
        assert_eq!(status, EXIT_USAGE, "{text}");
        text
    }

    #[test]
    fn valid_configuration_is_parsed() {
        let config = parse("--bucket b --timeout 2.5 --number 1 --log-format json --log debug").unwrap();
        assert_eq!(config.port, 8000);
        assert_eq!(config.bucket, "b");
        assert_eq!(config.timeout, Duration::from_millis(2500));
        assert_eq!(config.max_body, 20 << 20);
        assert_eq!(config.number, Some(1));
        assert!(!config.verbose);
        assert_eq!(config.log, LogArgs { log: "debug".to_owned(), log_format: LogFormat::Json });
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        insta::assert_snapshot!(
            error_text("--port abc --timeout=-1 --max-body 3MB --log-format xml --verbose=maybe --bogus 7 --other=8"),
            @r#"
        --port / TEST_CONFIG_PORT: "abc": invalid digit found in string
        --timeout: "-1": expected seconds, as in 30 or 2.5
        --max-body: "3MB": expected bytes, as in 20MiB, 512KiB or 1048576
        unexpected value 'maybe' for '--verbose' found; no more were expected
        --log-format / LOG_FORMAT: "xml" is none of auto, human, json
        unexpected argument '--bogus' found
        unexpected argument '--other' found
        --number / CARGO_PKG_NAME: "platform": invalid digit found in string
        --bucket / TEST_CONFIG_BUCKET: a value is needed
        try '--help'
        "#
        );
    }

    #[test]
    fn flag_without_its_value_is_reported() {
        insta::assert_snapshot!(error_text("--bucket b --number 1 --timeout=x --port"), @r#"
        --timeout: "x": expected seconds, as in 30 or 2.5
        --port / TEST_CONFIG_PORT: a value is needed
        try '--help'
        "#);
    }

    #[test]
    fn repeated_flag_is_reported_once() {
        insta::assert_snapshot!(error_text("--bucket b --number 1 --port x --port 1 --port 2"), @r#"
        --port / TEST_CONFIG_PORT: "x": invalid digit found in string
        try '--help'
        "#);
    }

    #[test]
    fn broken_rules_are_reported_if_all_values_parse() {
        insta::assert_snapshot!(
            error_text("--bucket b --number 1 --timeout 0 --port 1 --max-body 1"),
            @r#"
        --timeout: must be more than 0
        --max-body: too little for --port 1
        try '--help'
        "#
        );
    }

    #[test]
    fn stray_word_is_reported() {
        insta::assert_snapshot!(error_text("stray --bucket b --number 1 --port x"), @r#"
        unexpected argument 'stray' found
        --port / TEST_CONFIG_PORT: "x": invalid digit found in string
        try '--help'
        "#);
    }

    #[test]
    fn help_and_version_exit_with_0() {
        let (help, status) = parse("--help").unwrap_err();
        assert_eq!(status, 0);
        assert!(help.contains("--max-body"), "{help}");
        let (version, status) = parse("--version").unwrap_err();
        assert_eq!((version.as_str(), status), ("service 1.2.3\n", 0));
    }

    #[test]
    fn number_of_seconds_is_parsed_and_other_text_refused() {
        assert_eq!(parse_seconds("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_seconds(" 0.25 "), Ok(Duration::from_millis(250)));
        for bad in ["", "-1", "NaN", "inf", "1e30", "5s", "1,5"] {
            assert!(parse_seconds(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn size_in_bytes_is_parsed_and_other_text_refused() {
        assert_eq!(parse_bytes("0"), Ok(0));
        assert_eq!(parse_bytes("1048576"), Ok(1 << 20));
        assert_eq!(parse_bytes("512KiB"), Ok(512 << 10));
        assert_eq!(parse_bytes("20 MiB"), Ok(20 << 20));
        assert_eq!(parse_bytes("2gib"), Ok(2 << 30));
        for bad in ["", "MiB", "-1", "1.5MiB", "3MB", "1 2", "99999999999999999999", "99999999999GiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?}");
        }
    }
}
