//! Tests of the grants as an operator writes them.
#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use super::*;

const OWN_UID: u32 = 990_001;

fn config(grants: &[(&str, &str)], roles: &[(&str, &str, &str)]) -> Config {
    let mut config = Config::new("store");
    for (who, role) in grants {
        config.grants.insert((*who).into(), (*role).into());
    }
    for (role, target, verbs) in roles {
        let tables = config.roles.entry((*role).into()).or_default();
        tables.insert((*target).into(), verbs.split_whitespace().map(str::to_owned).collect());
    }
    config
}

fn refusal(grants: &[(&str, &str)], roles: &[(&str, &str, &str)]) -> String {
    Grants::look_up(&config(grants, roles), OWN_UID).unwrap_err().to_string()
}

#[test]
fn without_grants_the_owner_and_root_may_everything_and_others_nothing() {
    let grants = Grants::look_up(&config(&[], &[]), OWN_UID).unwrap();
    assert!(grants.roles_of(OWN_UID).is_owner() && grants.roles_of(0).is_owner());
    assert!(grants.roles_of(990_002).is_none());
    assert!(!grants.has_roles());
}

#[test]
fn a_user_has_its_own_grant_before_that_of_its_groups() {
    let roles = [("clerk", "activity.*", "insert"), ("reader", "activity.*", "select")];
    let grants = config(&[("group:0", "reader"), ("user:0", "clerk"), ("user:990002", OWNER)], &roles);
    let grants = Grants::look_up(&grants, OWN_UID).unwrap();
    assert_eq!(grants.roles_of(0), Roles::of(0), "root by its own grant");
    assert!(grants.roles_of(990_002).is_owner());
    assert!(grants.roles_of(990_003).is_none(), "a uid that this machine does not know is in no group");
    assert!(grants.has_roles());
}

#[test]
fn a_group_counts_as_primary_and_as_listed() {
    let Some((name, gid)) = principal::user(1) else { panic!("uid 1 is on every machine") };
    let grants = config(&[(&format!("group:{gid}"), "clerk")], &[("clerk", "activity.*", "insert")]);
    let mut grants = Grants::look_up(&grants, OWN_UID).unwrap();
    assert_eq!(grants.roles_of(1), Roles::of(0), "by its primary group");
    for (_, principal, _) in &mut grants.granted {
        *principal = Principal::Group { gid: 990_001, members: vec![name.clone()] };
    }
    grants.known().clear();
    assert_eq!(grants.roles_of(1), Roles::of(0), "by the group's list");
}

#[test]
fn a_mistake_is_refused_with_its_entry_and_what_there_is() {
    let clerk = [("clerk", "activity.a", "insert")];
    for (grants, roles, said) in [
        (
            &[("user:1", "clark")][..],
            &clerk[..],
            "[grants] \"user:1\": there is no role \"clark\"; there are clerk, owner",
        ),
        (&[("user:no such one", "clerk")], &clerk, "[grants] \"user:no such one\": this machine has no user"),
        (
            &[("group:no such one", "clerk")],
            &clerk,
            "[grants] \"group:no such one\": this machine has no group",
        ),
        (&[("1001", "clerk")], &clerk, "[grants] \"1001\": it is not user:NAME"),
        (&[("user:", "clerk")], &clerk, "[grants] \"user:\": it is not user:NAME"),
        (&[("user:0", "clerk"), ("user:root", "clerk")], &clerk, "\"user:0\" is uid 0 as well"),
        (&[], &[("clerk", "a", "insert")], "[roles.clerk] \"a\": it is not DATABASE.TABLE"),
        (
            &[],
            &[("clerk", "active.a", "insert")],
            "there is no database \"active\"; there are config, activity",
        ),
        (
            &[],
            &[("clerk", "activity.a", "read")],
            "there is no verb \"read\"; there are select, insert, update, delete",
        ),
        (&[], &[("clerk", "activity._penholder_meta", "select")], "Penholder's own"),
        (&[], &[("owner", "activity.a", "select")], "[roles.owner]"),
    ] {
        let text = refusal(grants, roles);
        assert!(text.contains(said) && text.contains("penholder.toml"), "{text}");
    }
}

#[test]
fn a_table_that_is_not_there_is_refused_once_the_schema_is_known() {
    let grants = config(&[], &[("clerk", "activity.evnts", "insert")]);
    let grants = Grants::look_up(&grants, OWN_UID).unwrap();
    let tables = ["events".to_owned(), "_penholder_meta".to_owned()];
    let text = grants.matrix("activity", &tables).unwrap_err().to_string();
    assert!(text.contains("[roles.clerk] \"activity.evnts\"") && text.contains("it has events;"), "{text}");
    assert!(grants.matrix("config", &tables).is_ok(), "it is about another database");
}

#[test]
fn the_effective_matrix_unites_a_star_with_what_is_named() {
    let roles = [("clerk", "activity.*", "select"), ("clerk", "activity.Events", "insert")];
    let grants = Grants::look_up(&config(&[], &roles), OWN_UID).unwrap();
    let tables = ["events".to_owned(), "sessions".to_owned(), "_penholder_rejected".to_owned()];
    let effective = grants.effective("activity", &tables).unwrap();
    let both = Verbs::default().with(Verb::Select).with(Verb::Insert);
    let expected =
        [("clerk", "events".into(), both), ("clerk", "sessions".into(), Verbs::default().with(Verb::Select))];
    assert_eq!(effective, expected);
}

#[test]
fn more_roles_than_fit_are_refused() {
    let names: Vec<_> = (0..=ROLES_COUNT_MAX).map(|number| format!("r{number}")).collect();
    let roles: Vec<_> = names.iter().map(|name| (name.as_str(), "activity.*", "select")).collect();
    assert!(refusal(&[], &roles).contains("at most 60"));
}
