//! `penholder diff`: tables of two databases, compared by content.

use penholder::split::{self, Compared, Difference};

use super::exit::{Exit, Failure};
use super::migration_args::DiffArgs;
use super::output::{BAD, GOOD, Output};
use super::render;

/// Compares; exits with 3 if any table differs.
pub(super) fn run(args: &DiffArgs, output: &mut Output) -> Result<Exit, Failure> {
    let (compared, alone) = split::diff(&args.a, &args.b, &args.tables, args.limit)?;
    if compared.is_empty() {
        return Err(Failure::new(format!(
            "{} and {} have no table in common",
            args.a.display(),
            args.b.display()
        )));
    }
    for table in &compared {
        if args.json { output.json(table)? } else { show(table, output)? }
    }
    if !alone.is_empty() {
        output.remark(&format!("not compared: {}", alone.join(", ")));
    }
    Ok(if compared.iter().all(|table| table.same) { Exit::Ok } else { Exit::Finding })
}

fn show(table: &Compared, output: &mut Output) -> Result<(), Failure> {
    let name = render::printable(&table.table);
    if table.same {
        let word = output.paint(GOOD, "same");
        let rows = render::count(table.rows_a, "row");
        return output.line(format!("{word}    {name}: {rows}, digest {}", table.digest_a));
    }
    let word = output.paint(BAD, "differs");
    if table.columns_differ {
        return output.line(format!("{word} {name}: the columns are not the same"));
    }
    output.line(format!(
        "{word} {name}: {} and {}, {} by {}",
        render::count(table.rows_a, "row"),
        render::count(table.rows_b, "row"),
        render::count(table.differences_count, "difference"),
        table.key.join(", ")
    ))?;
    for row in &table.differences {
        let word = match row.kind {
            Difference::OnlyInA => "only in the first ",
            Difference::OnlyInB => "only in the second",
            Difference::Changed => "changed           ",
        };
        output.line(format!("  {word} {}", render::printable(&row.key.join(", "))))?;
    }
    if table.differences_count > table.differences.len() as u64 {
        output.line(format!("  and {} more", table.differences_count - table.differences.len() as u64))?;
    }
    Ok(())
}
