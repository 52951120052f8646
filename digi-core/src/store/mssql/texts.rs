//! The texts of a statement, each bound as a parameter of its own, and once however often it occurs.
//!
//! The rows of a statement name them by their places. In the statement they stand in a table variable, `@texts`, by
//! place. A statement's text depends on how many there are, so there is one for each of a few numbers, and what is not
//! used of it stays empty.

use std::collections::HashMap;
use std::fmt::Write;

use tiberius::ToSql;

/// The most texts that one statement takes; with its other parameters fewer than the 2,100 that SQL Server allows.
pub(super) const MOST: usize = 2_048;

/// The numbers of texts for which there is a statement.
const SIZES: [usize; 5] = [8, 32, 128, 512, MOST];

/// Beyond so many bytes the driver binds a text as NVARCHAR(MAX), which is another statement to the server. Those have
/// places of their own, so that there are not as many statements as orders of long and short texts.
const LONG: usize = 4_000;
const FIRST_LONG: usize = 100_000;

/// In one `VALUES`; many small ones are compiled faster than a large one.
const ROWS: usize = 128;

/// Collects texts.
#[derive(Default)]
pub(super) struct Texts<'t> {
    places: HashMap<&'t str, usize>,
    short: Vec<&'t str>,
    long: Vec<&'t str>,
}

impl<'t> Texts<'t> {
    /// The place of a text.
    pub(super) fn place(&mut self, text: &'t str) -> usize {
        let (short, long) = (&mut self.short, &mut self.long);
        *self.places.entry(text).or_insert_with(|| {
            if text.len() > LONG {
                long.push(text);
                FIRST_LONG + long.len()
            } else {
                short.push(text);
                short.len()
            }
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// A statement with `values` as its first parameters, preceded by the texts.
    pub(super) fn with(self, statement: &str, values: Vec<Value<'t>>) -> Bound<'t> {
        let size = SIZES.into_iter().find(|size| *size >= self.short.len()).unwrap_or(self.short.len());
        // Not so much that the long ones have no place.
        let size = size.min(MOST.saturating_sub(self.long.len())).max(self.short.len());
        let size = if self.places.is_empty() { 0 } else { size };
        let mut values = values;
        let before = values.len();
        let mut text = String::from(
            "DECLARE @texts TABLE (n INT NOT NULL PRIMARY KEY, v NVARCHAR(MAX) COLLATE Latin1_General_100_BIN2 NOT NULL);",
        );
        let places: Vec<_> = (1..=size).chain((1..=self.long.len()).map(|place| FIRST_LONG + place)).collect();
        for (n, place) in places.iter().enumerate() {
            let begin = if n % ROWS == 0 { "\nINSERT INTO @texts (n, v) VALUES " } else { "," };
            // Writing into a text does not fail.
            let _ = write!(text, "{begin}({place},@P{})", before + n + 1);
            if n % ROWS == ROWS - 1 || n == places.len() - 1 {
                text.push(';');
            }
        }
        let padding = size - self.short.len();
        values.extend(self.short.into_iter().map(Value::Text));
        values.extend((0..padding).map(|_| Value::Text("")));
        values.extend(self.long.into_iter().map(Value::Text));
        text.push('\n');
        text.push_str(statement);
        Bound { text, values }
    }
}

/// The value of a parameter.
pub(super) enum Value<'v> {
    Number(i64),
    Text(&'v str),
    Made(String),
}

/// A statement with its values.
pub(super) struct Bound<'v> {
    text: String,
    values: Vec<Value<'v>>,
}

impl<'v> Bound<'v> {
    /// One that names no texts by their places.
    pub(super) fn new(statement: &str, values: Vec<Value<'v>>) -> Self {
        Self { text: statement.to_owned(), values }
    }

    /// What the driver takes.
    pub(super) fn parts(&self) -> (&str, Vec<&dyn ToSql>) {
        (&self.text, self.values.iter().map(Value::to_sql).collect())
    }
}

impl Value<'_> {
    fn to_sql(&self) -> &dyn ToSql {
        match self {
            Self::Number(number) => number,
            Self::Text(text) => text,
            Self::Made(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_place() {
        let long = "x".repeat(LONG + 1);
        let mut texts = Texts::default();
        assert_eq!([texts.place("a"), texts.place("b"), texts.place("a")], [1, 2, 1]);
        assert_eq!([texts.place(&long), texts.place("c")], [FIRST_LONG + 1, 3]);
        assert_eq!(texts.len(), 4);
        let Bound { text, values } = texts.with("SELECT 1", vec![Value::Number(7)]);
        assert_eq!(values.len(), 1 + 8 + 1);
        assert!(
            text.contains("VALUES (1,@P2),(2,@P3),") && text.contains("(8,@P9),(100001,@P10);\nSELECT 1"),
            "{text}"
        );
        assert!(matches!(values[9], Value::Text(text) if text == long));
    }

    #[test]
    fn there_are_few_statements_and_none_has_too_many_parameters() {
        let all: Vec<String> = (0..MOST).map(|n| n.to_string()).collect();
        let bound = |count: usize| {
            let mut texts = Texts::default();
            all[..count].iter().for_each(|text| {
                texts.place(text);
            });
            let Bound { text, values } = texts.with("", (0..10).map(Value::Number).collect());
            assert!(values.len() <= 2_100, "{}", values.len());
            text
        };
        let texts: std::collections::HashSet<_> = (0..=MOST).map(bound).collect();
        assert_eq!(texts.len(), 1 + SIZES.len());
    }

    #[test]
    fn long_ones_have_their_place_beside_short_ones() {
        let long: Vec<String> = (0..1_600).map(|n| format!("{n:05000}")).collect();
        let short: Vec<String> = (0..MOST).map(|n| n.to_string()).collect();
        for count in [1, 43, 447, 1_600] {
            let mut texts = Texts::default();
            for text in long[..count].iter().chain(&short[..MOST - count]) {
                texts.place(text);
            }
            assert_eq!(texts.with("", Vec::new()).values.len(), MOST);
        }
    }
}
