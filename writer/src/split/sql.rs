//! The text of a CREATE TABLE, taken apart as far as it takes to remove a foreign key from it.

use std::ops::Range;

/// One token: where it stands, and how deep in parentheses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    at: Range<usize>,
    depth: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A bare word: a keyword, or a name without quotes.
    Word,
    /// A name or text in quotes.
    Quoted,
    /// Anything else, one byte at a time.
    Mark(u8),
}

/// Takes foreign keys out of a CREATE TABLE; `wanted` are their places among all foreign keys, in the order of the text.
///
/// Everything else stays as it is, comments included. `None` if the text has fewer foreign keys than that.
pub(super) fn without_foreign_keys(sql: &str, wanted: &[usize]) -> Option<String> {
    let tokens = tokens(sql);
    let clauses = clauses(sql, &tokens);
    let chosen: Vec<&Clause> = wanted.iter().map(|place| clauses.get(*place)).collect::<Option<_>>()?;
    let ranges = chosen.into_iter().flat_map(|clause| [Some(&clause.text), clause.comma.as_ref()]);
    let mut cuts: Vec<Range<usize>> = ranges.flatten().cloned().collect();
    cuts.sort_by_key(|cut| cut.start);
    let (mut text, mut end) = (String::with_capacity(sql.len()), 0);
    for cut in cuts {
        text.push_str(sql.get(end..cut.start)?);
        end = cut.end;
    }
    text.push_str(sql.get(end..)?);
    Some(text)
}

/// The conditions of all CHECK constraints in the text of a table.
pub(super) fn checks(sql: &str) -> Vec<&str> {
    let tokens = tokens(sql);
    let condition = |(at, token): (usize, &Token)| {
        let open = tokens.get(at + 1).filter(|_| token.is(sql, "CHECK"))?;
        let ends = |token: &&Token| token.kind == Kind::Mark(b')') && token.depth == open.depth;
        let close = tokens.get(at + 1..)?.iter().find(ends)?;
        sql.get(open.at.end..close.at.start)
    };
    tokens.iter().enumerate().filter_map(condition).collect()
}

/// What to cut for one foreign key.
struct Clause {
    /// The constraint with its name.
    text: Range<usize>,
    /// The comma before a constraint of the table; a comment may stand between the two.
    comma: Option<Range<usize>>,
}

/// All foreign keys, in the order of the text.
fn clauses(sql: &str, tokens: &[Token]) -> Vec<Clause> {
    let word = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is(sql, word));
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        if !word(at, "REFERENCES") || tokens.get(at).is_none_or(|token| token.depth != 1) {
            continue;
        }
        let mut first = at;
        let of_table = foreign_key_before(sql, tokens, at);
        if let Some(start) = of_table {
            first = start;
        }
        if first >= 2 && word(first - 2, "CONSTRAINT") {
            first -= 2;
        }
        let last = end_of_reference(sql, tokens, at);
        let before = first.checked_sub(1).and_then(|place| tokens.get(place));
        let comma = before.filter(|token| of_table.is_some() && token.kind == Kind::Mark(b','));
        if let (Some(start), Some(end)) = (tokens.get(first), tokens.get(last)) {
            found.push(Clause {
                text: start.at.start..end.at.end,
                comma: comma.map(|token| token.at.clone()),
            });
        }
    }
    found
}

/// Where `FOREIGN KEY (...)` begins, if it ends just before `at`.
fn foreign_key_before(sql: &str, tokens: &[Token], at: usize) -> Option<usize> {
    let close = at.checked_sub(1)?;
    if tokens.get(close)?.kind != Kind::Mark(b')') {
        return None;
    }
    let depth = tokens.get(close)?.depth;
    let is_open = |place: &usize| {
        tokens.get(*place).is_some_and(|token| token.kind == Kind::Mark(b'(') && token.depth == depth)
    };
    let open = (0..close).rev().find(is_open)?;
    let key = open.checked_sub(1)?;
    let foreign = key.checked_sub(1)?;
    let is_it = tokens.get(key)?.is(sql, "KEY") && tokens.get(foreign)?.is(sql, "FOREIGN");
    is_it.then_some(foreign)
}

/// The last token of `REFERENCES table [(columns)] [ON ..] [MATCH ..] [[NOT] DEFERRABLE [INITIALLY ..]]`.
fn end_of_reference(sql: &str, tokens: &[Token], references: usize) -> usize {
    let word = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is(sql, word));
    let mut last = references + 1;
    if tokens.get(last + 1).is_some_and(|token| token.kind == Kind::Mark(b'(')) {
        let depth = tokens.get(last + 1).map_or(0, |token| token.depth);
        let is_close = |token: &Token| token.kind == Kind::Mark(b')') && token.depth == depth;
        last += 1 + tokens.iter().skip(last + 1).position(is_close).unwrap_or_default();
    }
    loop {
        let next = last + 1;
        last = if word(next, "ON") {
            // ON DELETE | UPDATE, then SET NULL, SET DEFAULT, NO ACTION, CASCADE or RESTRICT.
            if word(next + 2, "SET") || word(next + 2, "NO") { next + 3 } else { next + 2 }
        } else if word(next, "MATCH")
            || word(next, "INITIALLY")
            || word(next, "NOT") && word(next + 1, "DEFERRABLE")
        {
            next + 1
        } else if word(next, "DEFERRABLE") {
            next
        } else {
            return last;
        };
    }
}

impl Token {
    fn is(&self, sql: &str, word: &str) -> bool {
        self.kind == Kind::Word
            && sql.get(self.at.clone()).is_some_and(|text| text.eq_ignore_ascii_case(word))
    }
}

/// Splits a text that SQLite has accepted; comments and white space are passed over.
fn tokens(sql: &str) -> Vec<Token> {
    let bytes = sql.as_bytes();
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let find = |from: usize, what: &str| {
        sql.get(from..)
            .and_then(|rest| rest.find(what))
            .map_or(bytes.len(), |place| from + place + what.len())
    };
    let (mut tokens, mut at, mut depth) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        let start = at;
        let kind = match byte(at) {
            b'-' if byte(at + 1) == b'-' => {
                at = find(at, "\n");
                continue;
            }
            b'/' if byte(at + 1) == b'*' => {
                at = find(at + 2, "*/");
                continue;
            }
            space if space.is_ascii_whitespace() || space == 0x0b => {
                at += 1;
                continue;
            }
            b'[' => {
                at = find(at, "]");
                Kind::Quoted
            }
            quote @ (b'"' | b'\'' | b'`') => {
                at = end_of_quoted(bytes, at, quote);
                Kind::Quoted
            }
            first if is_word(first) => {
                while is_word(byte(at)) {
                    at += 1;
                }
                Kind::Word
            }
            mark => {
                at += 1;
                Kind::Mark(mark)
            }
        };
        if kind == Kind::Mark(b'(') {
            depth += 1;
        }
        tokens.push(Token { at: start..at, depth, kind });
        if kind == Kind::Mark(b')') {
            depth = depth.saturating_sub(1);
        }
    }
    tokens
}

/// A quote within is doubled.
fn end_of_quoted(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if byte == quote {
            if bytes.get(at) != Some(&quote) {
                return at;
            }
            at += 1;
        }
    }
    at
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    fn cut(sql: &str, wanted: &[usize]) -> String {
        without_foreign_keys(sql, wanted).unwrap()
    }

    #[test]
    fn a_column_loses_its_reference_and_keeps_the_rest() {
        let sql = "CREATE TABLE c(id INTEGER PRIMARY KEY, p INT NOT NULL REFERENCES p(id) ON DELETE SET NULL \
                   DEFERRABLE INITIALLY DEFERRED CHECK (p > 0), q TEXT)";
        assert_eq!(
            cut(sql, &[0]),
            "CREATE TABLE c(id INTEGER PRIMARY KEY, p INT NOT NULL  CHECK (p > 0), q TEXT)"
        );
    }

    #[test]
    fn a_constraint_of_the_table_goes_with_its_name_and_one_comma() {
        let sql = "CREATE TABLE c(a, b, CONSTRAINT [to p] FOREIGN KEY (a, b) REFERENCES \"p\"(x, y) \
                   ON UPDATE NO ACTION ON DELETE CASCADE MATCH FULL NOT DEFERRABLE, UNIQUE (a))";
        assert_eq!(cut(sql, &[0]), "CREATE TABLE c(a, b , UNIQUE (a))");
        assert_eq!(cut("CREATE TABLE c(a,FOREIGN KEY(a) REFERENCES p)", &[0]), "CREATE TABLE c(a)");
    }

    #[test]
    fn the_conditions_of_a_table_are_those_that_it_checks() {
        let sql = "CREATE TABLE c(a CHECK(a > (1)) DEFAULT 'CHECK (x)', \"check\" INT, b AS (iif(a, 1, 2)) check ( b<>')' ), \
                   CONSTRAINT n CHECK (a\n< b)) STRICT";
        assert_eq!(checks(sql), ["a > (1)", " b<>')' ", "a\n< b"]);
        assert_eq!(checks("CREATE TABLE c(a, b)"), [""; 0]);
    }

    #[test]
    fn only_the_wanted_ones_go() {
        let sql = "CREATE TABLE c(a REFERENCES x, b REFERENCES y(id), FOREIGN KEY (a) REFERENCES z(id))";
        assert_eq!(cut(sql, &[1]), "CREATE TABLE c(a REFERENCES x, b , FOREIGN KEY (a) REFERENCES z(id))");
        assert_eq!(cut(sql, &[2, 0]), "CREATE TABLE c(a , b REFERENCES y(id) )");
        assert_eq!(without_foreign_keys(sql, &[3]), None);
    }

    #[test]
    fn constraints_without_a_comma_between_them_are_told_apart() {
        let sql = "CREATE TABLE c(a, b, FOREIGN KEY (a) REFERENCES x FOREIGN KEY (b) REFERENCES y)";
        assert_eq!(cut(sql, &[0]), "CREATE TABLE c(a, b  FOREIGN KEY (b) REFERENCES y)");
        assert_eq!(cut(sql, &[1]), "CREATE TABLE c(a, b, FOREIGN KEY (a) REFERENCES x )");
    }

    #[test]
    fn what_only_looks_like_a_reference_stays() {
        let sql = "CREATE TABLE c(a DEFAULT 'x REFERENCES y', -- REFERENCES z\n \"REFERENCES\" TEXT /* , REFERENCES */, \
                   b CHECK (b <> 'FOREIGN KEY') REFERENCES p)";
        assert_eq!(cut(sql, &[0]), sql.replace(" REFERENCES p)", " )"));
    }

    #[test]
    fn a_quote_within_quotes_and_letters_of_any_script_are_read() {
        let sql = "CREATE TABLE \"a\"\"b\"(größe INT REFERENCES \"p\"\"q\"(`i``d`), x)";
        assert_eq!(cut(sql, &[0]), "CREATE TABLE \"a\"\"b\"(größe INT , x)");
    }
}
