//! The SQL functions that a command may call.

/// Functions that give the same for the same arguments and reach nothing outside of them, and those that tell the time
/// or draw numbers; sorted. What is not here tells of other commands (`changes`), of the program, or runs SQL of its own.
const ALLOWED: [&str; 137] = [
    "->",
    "->>",
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "avg",
    "bm25",
    "ceil",
    "ceiling",
    "char",
    "coalesce",
    "concat",
    "concat_ws",
    "cos",
    "cosh",
    "count",
    "cume_dist",
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "degrees",
    "dense_rank",
    "exp",
    "first_value",
    "floor",
    "format",
    "glob",
    "group_concat",
    "hex",
    "highlight",
    "if",
    "ifnull",
    "iif",
    "instr",
    "json",
    "json_array",
    "json_array_insert",
    "json_array_length",
    "json_error_position",
    "json_extract",
    "json_group_array",
    "json_group_object",
    "json_insert",
    "json_object",
    "json_patch",
    "json_pretty",
    "json_quote",
    "json_remove",
    "json_replace",
    "json_set",
    "json_type",
    "json_valid",
    "jsonb",
    "jsonb_array",
    "jsonb_array_insert",
    "jsonb_extract",
    "jsonb_group_array",
    "jsonb_group_object",
    "jsonb_insert",
    "jsonb_object",
    "jsonb_patch",
    "jsonb_remove",
    "jsonb_replace",
    "jsonb_set",
    "julianday",
    "lag",
    "last_insert_rowid",
    "last_value",
    "lead",
    "length",
    "like",
    "likelihood",
    "likely",
    "ln",
    "log",
    "log10",
    "log2",
    "lower",
    "ltrim",
    "match",
    "matchinfo",
    "max",
    "min",
    "mod",
    "nth_value",
    "ntile",
    "nullif",
    "octet_length",
    "offsets",
    "percent_rank",
    "pi",
    "pow",
    "power",
    "printf",
    "quote",
    "radians",
    "random",
    "randomblob",
    "rank",
    "replace",
    "round",
    "row_number",
    "rtrim",
    "sign",
    "sin",
    "sinh",
    "snippet",
    "soundex",
    "sqrt",
    "strftime",
    "string_agg",
    "substr",
    "substring",
    "sum",
    "tan",
    "tanh",
    "time",
    "timediff",
    "total",
    "trim",
    "trunc",
    "typeof",
    "unhex",
    "unicode",
    "unistr",
    "unistr_quote",
    "unixepoch",
    "unlikely",
    "upper",
    "zeroblob",
];

/// Functions whose result differs from call to call.
const VARYING: [&str; 12] = [
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "julianday",
    "random",
    "randomblob",
    "strftime",
    "time",
    "timediff",
    "unixepoch",
];

/// Why a command may not call a function; `None` if it may.
pub(crate) fn objection(function: &str, replayable: bool) -> Option<String> {
    let name = function.to_ascii_lowercase();
    let is_in = |list: &[&str]| list.binary_search(&name.as_str()).is_ok();
    if !is_in(&ALLOWED) {
        return Some(format!("function {name}() is not allowed in a command"));
    }
    (replayable && is_in(&VARYING)).then(|| {
        format!(
            "function {name}() is not allowed in a command over several databases; bind its value instead"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_what_varies_is_allowed() {
        assert!(ALLOWED.is_sorted() && VARYING.is_sorted());
        assert!(VARYING.iter().all(|name| ALLOWED.contains(name)));
    }

    #[test]
    fn what_tells_of_other_commands_or_of_the_program_is_refused() {
        for name in [
            "changes",
            "Total_Changes",
            "load_extension",
            "sqlite_offset",
            "fts3_tokenizer",
            "rtreecheck",
            "x",
        ] {
            assert!(objection(name, false).is_some(), "{name}");
        }
        assert_eq!(objection("JSON_EXTRACT", true), None);
        assert_eq!(objection("random", false), None);
        assert!(objection("RANDOM", true).is_some());
    }
}
