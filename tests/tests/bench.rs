//! The benchmark runs, with every peer that is installed, and proves its deliveries; how fast anything is, is not tested.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// The smallest run that still has every part of a whole one but the fence, whose spinning would disturb other tests.
const SMALLEST: &str = "--quick --seconds 0.1 --processes 2 --shrink 1000 \
                        --only processes,bulk,idle,join";

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench")).args(arguments).output().unwrap()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Subject and peer of everything that was measured.
fn measured(results: &Value) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let points = results["points"].as_array().unwrap();
    points.iter().map(|point| (text(&point["subject"]), text(&point["peer"]))).collect()
}

#[test]
fn the_smallest_run_measures_every_peer_and_proves_its_deliveries() {
    // PostgreSQL's server, which is another user's where we are root, must be able to pass.
    let everybody = std::fs::Permissions::from_mode(0o755);
    let place = tempfile::Builder::new().permissions(everybody).tempdir().unwrap();
    let json = place.path().join("run.json");
    let mut arguments: Vec<&str> = SMALLEST.split_whitespace().collect();
    arguments.extend(["--dir", place.path().to_str().unwrap(), "--json", json.to_str().unwrap()]);
    let output = bench(&arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let results = read(&json);
    let mut wanted = vec!["penholder", "sqlite", "sqlite-normal", "files", "socket"];
    // Where PostgreSQL is missing, the run says so and goes on.
    if errors.contains("SKIPPED: PostgreSQL") {
        eprintln!("{errors}");
    } else {
        wanted.push("postgres");
    }
    let mut wanted: Vec<_> = wanted.into_iter().map(|peer| ("processes", peer)).collect();
    wanted.extend([("bulk", "connection"), ("bulk", "penholder"), ("backlog", "penholder")]);
    wanted.extend([("idle-bulk", "penholder"), ("join-rows", "attach"), ("join-sums", "penholder")]);
    let wanted: BTreeSet<_> = wanted.into_iter().map(|(s, p)| (s.to_owned(), p.to_owned())).collect();
    let missing: Vec<_> = wanted.difference(&measured(&results)).cloned().collect();
    assert!(missing.is_empty(), "not measured: {missing:?}\n{errors}");
    for point in results["points"].as_array().unwrap() {
        let value = point["rounds"][0]["value"].as_f64().unwrap();
        assert!(value > 0.0, "{point} measured nothing");
    }
    let left = std::fs::read_dir(place.path()).unwrap().count();
    assert_eq!(left, 1, "the run leaves nothing but its result");
}

/// The document as it was before it was filled.
fn without_tables(document: &str) -> String {
    let mut inside = false;
    let mut text = String::new();
    for line in document.lines() {
        inside &= line != "<!-- bench: end -->";
        if !inside {
            text += line;
            text.push('\n');
        }
        inside |= line.starts_with("<!-- bench: ") && line != "<!-- bench: end -->";
    }
    assert!(text.len() < document.len(), "a document of the benchmark has tables");
    text
}

#[test]
fn the_documents_show_the_run_that_lies_beside_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let shown = root.join("docs/benchmarks");
    let place = tempfile::tempdir().unwrap();
    let drawn = place.path().join("plots");
    let documents = [root.join("README.md"), shown.join("README.md")];
    let filled = ["README.md", "benchmarks.md"].map(|name| place.path().join(name));
    let text =
        |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    for (document, copy) in documents.iter().zip(&filled) {
        std::fs::write(copy, without_tables(&text(document))).unwrap();
    }
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let output = bench(&[
        "--from",
        &path(&shown.join("run.json")),
        "--plots",
        &path(&drawn),
        "--fill",
        &path(&filled[0]),
        &path(&filled[1]),
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text =
        |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    for (document, copy) in documents.iter().zip(&filled) {
        assert!(text(document) == text(copy), "{} shows another run: fill it again", document.display());
    }
    let plots: Vec<_> = std::fs::read_dir(&drawn).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!plots.is_empty(), "nothing was drawn");
    for plot in plots {
        assert!(
            text(&shown.join(&plot)) == text(&drawn.join(&plot)),
            "{plot:?} shows another run: draw it again"
        );
    }
}
