//! Tables and words for people.

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};
use penholder_protocol::Value;

use super::output::Output;

/// Most bytes of a blob that a table shows.
const BLOB_BYTES_SHOWN: usize = 32;

/// A table of rows: drawn to the width of a terminal, or aligned columns without lines where nobody draws.
pub(super) fn table<'r>(
    output: &Output,
    names: &[impl AsRef<str>],
    rows: impl IntoIterator<Item = &'r [Value]>,
) -> String {
    let mut table = empty(output, names);
    for row in rows {
        table.add_row(row.iter().map(|value| {
            let cell = Cell::new(cell(value));
            match value {
                Value::Integer(_) | Value::Real(_) => cell.set_alignment(CellAlignment::Right),
                Value::Null => cell.add_attribute(Attribute::Dim),
                Value::Text(_) | Value::Blob(_) => cell,
            }
        }));
    }
    finish(&table)
}

/// A table of words.
pub(super) fn words(output: &Output, names: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = empty(output, names);
    for row in rows {
        table.add_row(row.into_iter().map(|word| Cell::new(printable(&word))));
    }
    finish(&table)
}

fn empty(output: &Output, names: &[impl AsRef<str>]) -> Table {
    let mut table = Table::new();
    table.set_header(
        names.iter().map(|name| Cell::new(printable(name.as_ref())).add_attribute(Attribute::Bold)),
    );
    if output.is_terminal {
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    }
    if output.is_colored {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

fn finish(table: &Table) -> String {
    table.trim_fmt()
}

/// A value as one cell shows it.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(integer) => integer.to_string(),
        Value::Real(real) => format!("{real:?}"),
        Value::Text(text) => printable(text),
        Value::Blob(blob) => {
            let shown = blob.iter().take(BLOB_BYTES_SHOWN).map(|byte| format!("{byte:02x}"));
            let more = if blob.len() > BLOB_BYTES_SHOWN { "…" } else { "" };
            format!("x'{}'{more}", shown.collect::<String>())
        }
    }
}

/// Text that does to the terminal what it looks like, and nothing else.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A number of things: `1 row`, `2 rows`.
pub(super) fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// A size in the unit that people would choose.
pub(super) fn bytes(number: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let Some((shift, unit)) = units.into_iter().find(|(shift, _)| number >> shift > 0) else {
        return format!("{number} B");
    };
    let tenths = (u128::from(number) * 10) >> shift;
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Color;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\n\u{9b}"), "a\\u{1b}[31mb\\n\\u{9b}");
        assert_eq!(printable("grüße 日本"), "grüße 日本");
    }

    #[test]
    fn cells_show_what_kind_of_value_they_hold() {
        assert_eq!(cell(&Value::Real(1.0)), "1.0");
        assert_eq!(cell(&Value::Integer(1)), "1");
        assert_eq!(cell(&Value::Blob(vec![0, 255])), "x'00ff'");
        assert!(cell(&Value::Blob(vec![0; 33])).ends_with('…'));
    }

    #[test]
    fn a_table_that_is_piped_has_aligned_columns_and_no_lines() {
        let output = Output::stdout(Color::Never);
        let rows =
            [vec![Value::Integer(1), Value::Text("one".into())], vec![Value::Integer(10), Value::Null]];
        let table = table(&output, &["n", "word"], rows.iter().map(Vec::as_slice));
        let lines: Vec<_> = table.lines().map(str::trim).collect();
        assert_eq!(lines.len(), 3);
        assert!(!table.contains('\u{1b}') && !table.contains('─'), "{table}");
    }

    #[test]
    fn numbers_of_things_are_words() {
        assert_eq!((count(0, "row"), count(1, "row")), ("0 rows".to_owned(), "1 row".to_owned()));
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "17179869183.9 GiB");
    }
}
