//! The text of `penholder.toml`: the references that were foreign keys.

use super::plan::Plan;

/// Writes the declared references; the others stand there as comments, to be taken up once their orphans are gone.
pub(super) fn text(plan: &Plan) -> String {
    let source = plan.source.path.display().to_string();
    let mut lines = vec![format!("# Written by penholder split from {}.", source.escape_debug())];
    for reference in plan.references.iter().filter(|reference| reference.crosses) {
        lines.push(String::new());
        if !reference.declared {
            let count = reference.orphans;
            let rows = if count == 1 { "row refers" } else { "rows refer" };
            lines.push(format!("# Not enforced: {count} {rows} to what is not there."));
        }
        let mark = if reference.declared { "" } else { "# " };
        lines.push(format!("{mark}[[references]]"));
        lines.push(format!("{mark}from = {}", string(&reference.from)));
        lines.push(format!("{mark}to = {}", string(&reference.to)));
        lines.push(format!("{mark}on_delete = {}", string(reference.on_delete)));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// A basic string of TOML.
fn string(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}
