//! Tests of the command line as it is typed.
#![allow(clippy::unwrap_used, reason = "a test may stop where it stands")]

use super::super::aside_args::RejectedAction;
use super::*;

fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(["penholder"].iter().chain(words))
}

fn exec(words: &[&str]) -> ExecArgs {
    let Task::Exec(args) = parse(words).unwrap().task else { unreachable!("exec is what was typed") };
    args
}

#[test]
fn the_definitions_are_consistent() {
    command().debug_assert();
}

#[test]
fn help_of_every_command_starts_with_examples() {
    let mut command = command();
    command.build();
    assert!(command.render_long_help().to_string().starts_with("Examples:"));
    let mut below = vec![&mut command];
    while let Some(command) = below.pop() {
        let help = command.render_help().to_string();
        assert!(help.trim_start().starts_with("Examples:"), "{}", command.get_name());
        below.extend(command.get_subcommands_mut().filter(|subcommand| subcommand.get_name() != "help"));
    }
}

#[test]
fn parameters_stand_behind_the_sql_and_flags_anywhere() {
    let args = exec(&["exec", "s", "--db", "a", "SQL ?1", "-5", "x", "--json", "-1.5", "--", "--not-a-flag"]);
    assert_eq!(args.sql.as_deref(), Some("SQL ?1"));
    assert_eq!(args.params, ["-5", "x", "-1.5", "--not-a-flag"]);
    assert!(args.json && args.level == Level::Applied);
    assert_eq!(args.timeout, Duration::from_secs(10));
}

#[test]
fn times_need_a_unit() {
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
    assert_eq!(duration("0s"), Ok(Duration::ZERO));
    for wrong in ["", "10", "-1s", "soon"] {
        assert!(duration(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn keys_are_uuids_in_any_spelling() {
    let key = key("67e55044-10b1-426f-9247-bb680e5fe0c8").unwrap();
    assert_eq!(super::key("67E5504410B1426F9247BB680E5FE0C8"), Ok(key));
    assert!(super::key("x").is_err());
}

#[test]
fn what_does_not_go_together_is_a_usage_error() {
    let wrong: [&[&str]; 10] = [
        &["exec", "s"],
        &["exec", "s", "SQL"],
        &["exec", "s", "--db", "a"],
        &["exec", "s", "--stdin", "SQL"],
        &["exec", "s", "--stdin", "--db", "a"],
        &["exec", "s", "--stdin", "--window", "0"],
        &["exec", "s", "--db", "a", "SQL", "--level", "sometimes"],
        &["query", "s", "SQL"],
        &["backup", "s"],
        &["rejected", "s", "show"],
    ];
    for words in wrong {
        assert!(parse(words).unwrap_err().use_stderr(), "{words:?}");
    }
}

#[test]
fn rejected_lists_without_a_word_and_takes_json_anywhere() {
    for words in [
        &["rejected", "s", "--json"][..],
        &["rejected", "s", "list", "--json"],
        &["rejected", "--json", "s", "list"],
    ] {
        let Task::Rejected(args) = parse(words).unwrap().task else {
            unreachable!("rejected is what was typed")
        };
        assert!(args.json && matches!(args.action, None | Some(RejectedAction::List)));
    }
}

#[test]
fn the_colour_is_known_before_anything_else() {
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let color = |typed: &[&str]| color_of(&words(typed), None);
    assert_eq!(color(&["penholder", "--color", "never", "--help"]), Color::Never);
    assert_eq!(color(&["penholder", "status", "--color=always"]), Color::Always);
    assert_eq!(color(&["penholder", "--color", "sometimes"]), Color::Auto);
    assert_eq!(color(&["penholder", "exec", "--", "--color=never"]), Color::Auto);
    let color = |typed: &[&str]| color_of(&words(typed), Some(OsStr::new("always")));
    assert_eq!(color(&["penholder", "status"]), Color::Always);
    assert_eq!(color(&["penholder", "status", "--color=never"]), Color::Never);
}
