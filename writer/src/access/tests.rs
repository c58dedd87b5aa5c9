//! Tests of the modes.

use super::*;

fn store() -> (tempfile::TempDir, Layout, Config) {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path().join("store"));
    let config = Config::new(layout.root());
    make_directories(&layout).unwrap();
    for name in ["penholder.toml", "writer.lock", "control", "config.db", "config.db-wal", "activity.db"] {
        let path = layout.root().join(name);
        std::fs::write(&path, "").unwrap();
        chmod(&path, if name == "writer.lock" { 0o600 } else { 0o640 });
    }
    (directory, layout, config)
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_new_store_has_the_modes_that_are_documented_and_passes_its_own_check() {
    let (_directory, layout, config) = store();
    check(&layout, &config).unwrap();
    assert_eq!(mode(layout.root()), 0o750);
    assert_eq!(mode(&layout.spool()), 0o3770);
    assert_eq!(mode(&layout.spool_tmp()), 0o3770);
    assert_eq!(mode(&layout.receipts()) & 0o777, 0o750);
    assert_eq!(mode(&layout.quarantine()) & 0o777, 0o700);
}

#[test]
fn directories_that_are_there_keep_the_modes_that_an_operator_gave_them() {
    let (_directory, layout, config) = store();
    chmod(&layout.spool(), 0o1777);
    chmod(&layout.spool_tmp(), 0o1777);
    make_directories(&layout).unwrap();
    assert_eq!(mode(&layout.spool()), 0o1777);
    check(&layout, &config).unwrap();
}

#[test]
fn every_unsafe_mode_is_refused_with_the_command_that_mends_it() {
    let cases = [
        ("", 0o770, "chmod 0750"),
        ("", 0o757, "chmod 0750"),
        ("spool", 0o770, "chmod 1770"),
        ("spool", 0o2777, "chmod 3777"),
        ("spool/tmp", 0o707, "chmod 1707"),
        ("receipts", 0o770, "chmod 0750"),
        ("quarantine", 0o750, "chmod 0700"),
        ("penholder.toml", 0o660, "chmod 0640"),
        ("penholder.toml", 0o646, "chmod 0640"),
        ("writer.lock", 0o640, "chmod 0600"),
        ("control", 0o666, "chmod 0644"),
        ("activity.db", 0o660, "chmod 0640"),
        ("config.db", 0o646, "chmod 0640"),
        ("config.db-wal", 0o666, "chmod 0640"),
    ];
    for (name, bad, mend) in cases {
        let (_directory, layout, config) = store();
        let path = if name.is_empty() { layout.root().to_owned() } else { layout.root().join(name) };
        chmod(&path, bad);
        let message = check(&layout, &config).unwrap_err().to_string();
        let named = [&format!("{bad:04o}"), mend, &path.display().to_string()];
        assert!(named.iter().all(|part| message.contains(*part)), "{name} {bad:o}: {message}");
        // What it says does mend it.
        let wanted = u32::from_str_radix(&message.rsplit_once("chmod ").unwrap().1[..4], 8).unwrap();
        chmod(&path, wanted);
        check(&layout, &config).unwrap();
    }
}

#[test]
fn what_is_no_plain_file_of_one_name_is_refused() {
    let (_directory, layout, config) = store();
    std::fs::hard_link(layout.database("activity"), layout.root().join("twin")).unwrap();
    assert!(check(&layout, &config).unwrap_err().to_string().contains("2 names"));
    std::fs::remove_file(layout.root().join("twin")).unwrap();
    check(&layout, &config).unwrap();
    std::fs::remove_file(layout.control()).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", layout.control()).unwrap();
    assert!(check(&layout, &config).unwrap_err().to_string().contains("not a regular file"));
}

#[test]
fn a_file_of_another_user_is_refused_with_the_command_that_mends_it() {
    let (_directory, layout, config) = store();
    let path = layout.database("config");
    if let Err(error) = std::os::unix::fs::chown(&path, Some(4242), None) {
        println!("SKIPPED: giving a file away is not permitted here: {error}");
        return;
    }
    let message = check(&layout, &config).unwrap_err().to_string();
    assert!(message.contains("uid 4242") && message.contains("chown 0 "), "{message}");
}

#[test]
fn a_file_can_be_shown_to_one_user_without_being_given_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("receipt");
    let file = File::create(&path).unwrap();
    chmod(&path, OWNER_MODE);
    let_read(&file, own_uid()).unwrap();
    assert_eq!(mode(&path), 0o600);
    let_read(&file, own_uid() + 1).unwrap();
    // With a list, the group bits are the most that the list gives; without one, the group reads.
    assert_eq!((mode(&path), file.metadata().unwrap().uid()), (0o640, own_uid()));
    let mut list = [0; 64];
    match rustix::fs::fgetxattr(&file, "system.posix_acl_access", &mut list[..]) {
        Ok(length) => assert_eq!(&list[..length], access_list(6, own_uid() + 1)),
        Err(error) => println!("SKIPPED: no access lists here: {error}"),
    }
}
