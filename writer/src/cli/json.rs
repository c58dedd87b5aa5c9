//! SQLite values as JSON and back, exactly: integers keep their 64 bits, floats every digit, bytes go as base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use penholder_protocol::Value;
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// An infinite float, for which JSON has no word: every parser that keeps floats reads it back as infinite.
const INFINITE: &str = "9e999";

/// Writes a value: bytes as `{"blob":"<base64>"}`.
pub(super) struct AsJson<'v>(pub(super) &'v Value);

impl Serialize for AsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Integer(integer) => serializer.serialize_i64(*integer),
            Value::Real(real) if real.is_infinite() => {
                let sign = if *real > 0.0 { "" } else { "-" };
                RawValue::from_string(format!("{sign}{INFINITE}"))
                    .map_err(serde::ser::Error::custom)?
                    .serialize(serializer)
            }
            Value::Real(real) => serializer.serialize_f64(*real),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Blob(blob) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("blob", &STANDARD.encode(blob))?;
                map.end()
            }
        }
    }
}

/// Bytes, as the command line and commands on stdin spell them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Blob {
    blob: String,
}

/// Reads a parameter of a command on stdin; it has to be a JSON scalar or `{"blob":"<base64>"}`.
pub(super) fn value(raw: &RawValue) -> Result<Value, String> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'n') => Ok(Value::Null),
        Some(b't') => Ok(Value::Integer(1)),
        Some(b'f') => Ok(Value::Integer(0)),
        Some(b'"') => serde_json::from_str(text).map(Value::Text).map_err(|error| error.to_string()),
        Some(b'{') => {
            let Ok(Blob { blob }) = serde_json::from_str(text) else {
                return Err(r#"an object is not a value; bytes are {"blob":"<base64>"}"#.to_owned());
            };
            STANDARD.decode(blob).map(Value::Blob).map_err(|error| format!("not base64: {error}"))
        }
        Some(b'[') => Err("an array is not a value; store it as text".to_owned()),
        _ => number(text),
    }
}

/// Reads a number by its text: no digit of an integer may be lost on the way through a float, and no number becomes
/// infinite but the one that stands for it.
fn number(text: &str) -> Result<Value, String> {
    if text.contains(['.', 'e', 'E']) {
        let real: f64 = text.parse().map_err(|_| format!("{text} is not a number"))?;
        if real.is_infinite() && text.trim_start_matches('-') != INFINITE {
            return Err(format!(
                "{text} does not fit into a float; quote it to pass it as text, or write {INFINITE} for infinity"
            ));
        }
        return Ok(Value::Real(real));
    }
    let too_large =
        || format!("{text} does not fit into 64 bits; quote it to pass it as text, or write it as {text}.0");
    text.parse().map(Value::Integer).map_err(|_| too_large())
}

/// Reads a parameter of the command line: JSON where it parses as a value, else text.
pub(super) fn param(text: &str) -> Result<Value, String> {
    let Ok(raw) = serde_json::from_str::<&RawValue>(text) else { return Ok(Value::Text(text.to_owned())) };
    let is_blob = || serde_json::from_str::<Blob>(text).is_ok();
    match raw.get().as_bytes().first() {
        Some(b'[') => Ok(Value::Text(text.to_owned())),
        Some(b'{') if !is_blob() => Ok(Value::Text(text.to_owned())),
        _ => value(raw),
    }
}

/// A row as an object: its columns in their order, and a column whose name was there before with a number behind it.
pub(super) struct RowAsJson<'r> {
    pub(super) names: &'r [String],
    pub(super) values: &'r [Value],
}

impl Serialize for RowAsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.names.iter().zip(self.values.iter().map(AsJson)))
    }
}

/// Makes column names distinct: `id, id` becomes `id, id_2`.
pub(super) fn distinct(names: &[String]) -> Vec<String> {
    let mut taken: Vec<String> = Vec::with_capacity(names.len());
    for (at, name) in names.iter().enumerate() {
        let is_free = |taken: &[String], wanted: &String| {
            !taken.contains(wanted)
                && names.get(at + 1..).is_none_or(|rest| !rest.contains(wanted) || wanted == name)
        };
        let mut wanted = name.clone();
        let mut number = 2;
        while !is_free(&taken, &wanted) {
            wanted = format!("{name}_{number}");
            number += 1;
        }
        taken.push(wanted);
    }
    taken
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop where it stands")]
mod tests {
    use super::*;

    fn text_of(value: &Value) -> String {
        serde_json::to_string(&AsJson(value)).unwrap()
    }

    #[test]
    fn a_parameter_is_a_json_scalar_where_it_parses_as_one_and_text_otherwise() {
        let cases = [
            ("null", Value::Null),
            ("true", Value::Integer(1)),
            ("false", Value::Integer(0)),
            ("-5", Value::Integer(-5)),
            ("1.5", Value::Real(1.5)),
            ("1e3", Value::Real(1000.0)),
            ("\"5\"", Value::Text("5".into())),
            ("007", Value::Text("007".into())),
            ("", Value::Text(String::new())),
            ("a b", Value::Text("a b".into())),
            ("nullable", Value::Text("nullable".into())),
            ("[1,2]", Value::Text("[1,2]".into())),
            ("{\"a\":1}", Value::Text("{\"a\":1}".into())),
            ("{\"blob\":\"AAEC\"}", Value::Blob(vec![0, 1, 2])),
        ];
        for (text, value) in cases {
            assert_eq!(param(text), Ok(value), "{text}");
        }
        assert!(param("{\"blob\":\"?\"}").is_err());
    }

    #[test]
    fn integers_keep_their_64_bits_and_larger_ones_are_refused() {
        for integer in [i64::MIN, i64::MAX, 9_007_199_254_740_993] {
            let value = Value::Integer(integer);
            assert_eq!(text_of(&value), integer.to_string());
            assert_eq!(param(&text_of(&value)), Ok(value));
        }
        assert!(param("9223372036854775808").unwrap_err().contains("64 bits"));
    }

    #[test]
    fn a_float_that_would_become_infinite_is_refused() {
        for text in ["1e400", "-1e400", "9e998", "123.0e308"] {
            assert!(param(text).unwrap_err().contains("does not fit into a float"), "{text}");
        }
        assert_eq!(param("-9e999"), Ok(Value::Real(f64::NEG_INFINITY)));
        assert_eq!(param("1e-400"), Ok(Value::Real(0.0)));
    }

    #[test]
    fn floats_and_bytes_survive_the_way_there_and_back() {
        for real in [0.1, 1.0, -0.0, 5e-324, f64::MAX, f64::INFINITY, f64::NEG_INFINITY, 1.0e23, 0.3] {
            let Ok(Value::Real(back)) = param(&text_of(&Value::Real(real))) else {
                panic!("{real} is a float")
            };
            assert_eq!(back.to_bits(), real.to_bits());
        }
        let blob = Value::Blob((0..=255).collect());
        assert_eq!(param(&text_of(&blob)), Ok(blob));
    }

    #[test]
    fn repeated_column_names_get_numbers_that_nobody_else_has() {
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(distinct(&names(&["id", "a", "id", "id"])), names(&["id", "a", "id_2", "id_3"]));
        assert_eq!(distinct(&names(&["id", "id", "id_2"])), names(&["id", "id_3", "id_2"]));
    }

    #[test]
    fn a_row_keeps_the_order_of_its_columns() {
        let (names, values) = (["z".to_owned(), "a".to_owned()], [Value::Integer(1), Value::Null]);
        let row = RowAsJson { names: &names, values: &values };
        assert_eq!(serde_json::to_string(&row).unwrap(), r#"{"z":1,"a":null}"#);
    }
}
