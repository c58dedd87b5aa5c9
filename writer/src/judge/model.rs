//! Random statements before the judge, beside a model of the grant table that knows what each was built from.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::tests::{SCHEMA, judge};
use super::*;

/// Tables and views of the schema that statements are made of; all have the columns id, x and y.
const TABLES: [&str; 6] = ["a", "b", "c", "d", "e", "v"];

/// Names that a client may give to a table expression, to pass for something else.
const ALIASES: [&str; 4] = ["t", "on_d", "on_v", "e_by_y"];

type Needs = BTreeSet<(usize, Verb)>;

#[derive(Clone, Debug)]
enum Expression {
    Literal,
    /// A column of the table that the statement is about.
    Column,
    Subquery(Box<Query>),
    Sum(Box<Expression>, Box<Expression>),
}

#[derive(Clone, Debug)]
struct Query {
    source: Source,
    filter: Option<Box<Expression>>,
    counts: bool,
}

#[derive(Clone, Debug)]
enum Source {
    Table(usize),
    Derived(Box<Query>, usize),
    Expression(Box<Query>, usize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Conflict {
    Default,
    Ignore,
    Replace,
}

#[derive(Clone, Debug)]
enum Statement {
    Select(Query),
    Insert {
        table: usize,
        conflict: Conflict,
        value: Expression,
        upsert: Option<Expression>,
        returning: Option<Expression>,
    },
    InsertSelect {
        table: usize,
        conflict: Conflict,
        query: Query,
    },
    Update {
        table: usize,
        conflict: Conflict,
        column: &'static str,
        value: Expression,
        filter: Option<Expression>,
    },
    Delete {
        table: usize,
        filter: Option<Expression>,
        returning: Option<Expression>,
    },
}

/// The SQL, with what it needs noted.
struct Writer {
    needs: Needs,
    /// It is refused to every role.
    hopeless: bool,
}

impl Writer {
    fn need(&mut self, table: usize, verb: Verb) {
        self.needs.insert((table, verb));
    }

    /// `scope`: the table whose columns can be named; none in VALUES.
    fn expression(&mut self, expression: &Expression, scope: Option<&Source>) -> String {
        match expression {
            Expression::Literal => "1".into(),
            Expression::Column => match scope {
                None => "2".into(),
                Some(source) => {
                    if let Source::Table(table) = source {
                        self.need(*table, Verb::Select);
                    }
                    "x".into()
                }
            },
            Expression::Subquery(query) => format!("({} LIMIT 1)", self.query(query)),
            Expression::Sum(one, other) => {
                format!("{} + {}", self.expression(one, scope), self.expression(other, scope))
            }
        }
    }

    fn query(&mut self, query: &Query) -> String {
        let result = if query.counts { "count(*) AS x" } else { "x" };
        let (head, from) = match &query.source {
            Source::Table(table) => {
                self.need(*table, Verb::Select);
                (String::new(), TABLES[*table].to_owned())
            }
            Source::Derived(query, alias) => {
                (String::new(), format!("({}) AS {}", self.query(query), ALIASES[*alias]))
            }
            Source::Expression(query, alias) => {
                let name = ALIASES[*alias];
                (format!("WITH {name} AS ({}) ", self.query(query)), name.to_owned())
            }
        };
        let filter = self.filter(query.filter.as_deref(), &query.source);
        format!("{head}SELECT {result} FROM {from}{filter}")
    }

    fn filter(&mut self, filter: Option<&Expression>, scope: &Source) -> String {
        filter.map_or_else(String::new, |filter| format!(" WHERE {}", self.expression(filter, Some(scope))))
    }

    fn returning(&mut self, returning: Option<&Expression>, table: usize) -> String {
        let scope = Source::Table(table);
        returning
            .map_or_else(String::new, |value| format!(" RETURNING {}", self.expression(value, Some(&scope))))
    }

    /// What a conflict clause, or none, lets the statement remove.
    fn conflict(&mut self, conflict: Conflict, table: usize, touches_x: bool) -> &'static str {
        match conflict {
            Conflict::Default => {
                if TABLES[table] == "c" && touches_x {
                    self.need(table, Verb::Delete);
                }
                ""
            }
            Conflict::Ignore => " OR IGNORE",
            Conflict::Replace => {
                self.need(table, Verb::Delete);
                self.hopeless |= ["d", "v"].contains(&TABLES[table]);
                " OR REPLACE"
            }
        }
    }

    fn statement(&mut self, statement: &Statement) -> String {
        match statement {
            Statement::Select(query) => self.query(query),
            Statement::Insert { table, conflict, value, upsert, returning } => {
                self.need(*table, Verb::Insert);
                let conflict = self.conflict(*conflict, *table, true);
                let value = self.expression(value, None);
                // A view cannot be upserted.
                let upsert =
                    upsert.as_ref().filter(|_| TABLES[*table] != "v").map_or_else(String::new, |value| {
                        self.need(*table, Verb::Update);
                        self.need(*table, Verb::Select);
                        let value = self.expression(value, Some(&Source::Table(*table)));
                        format!(" ON CONFLICT (id) DO UPDATE SET y = {value}")
                    });
                let returning = self.returning(returning.as_ref(), *table);
                format!(
                    "INSERT{conflict} INTO {} (id, x) VALUES (7, {value}){upsert}{returning}",
                    TABLES[*table]
                )
            }
            Statement::InsertSelect { table, conflict, query } => {
                self.need(*table, Verb::Insert);
                let conflict = self.conflict(*conflict, *table, true);
                format!("INSERT{conflict} INTO {} (x) {}", TABLES[*table], self.query(query))
            }
            Statement::Update { table, conflict, column, value, filter } => {
                self.need(*table, Verb::Update);
                let conflict = self.conflict(*conflict, *table, *column == "x");
                let value = self.expression(value, Some(&Source::Table(*table)));
                let filter = self.filter(filter.as_ref(), &Source::Table(*table));
                format!("UPDATE{conflict} {} SET {column} = {value}{filter}", TABLES[*table])
            }
            Statement::Delete { table, filter, returning } => {
                self.need(*table, Verb::Delete);
                let filter = self.filter(filter.as_ref(), &Source::Table(*table));
                let returning = self.returning(returning.as_ref(), *table);
                format!("DELETE FROM {}{filter}{returning}", TABLES[*table])
            }
        }
    }
}

fn query() -> impl Strategy<Value = Query> {
    let leaf = (0..TABLES.len(), any::<bool>()).prop_map(|(table, counts)| Query {
        source: Source::Table(table),
        filter: None,
        counts,
    });
    leaf.prop_recursive(4, 12, 2, |inner| {
        let filter = prop_oneof![
            Just(Expression::Literal),
            Just(Expression::Column),
            inner.clone().prop_map(|query| Expression::Subquery(Box::new(query))),
        ];
        let source = prop_oneof![
            (0..TABLES.len()).prop_map(Source::Table),
            (inner.clone(), 0..ALIASES.len())
                .prop_map(|(query, alias)| Source::Derived(Box::new(query), alias)),
            (inner, 0..ALIASES.len()).prop_map(|(query, alias)| Source::Expression(Box::new(query), alias)),
        ];
        (source, prop::option::of(filter), any::<bool>()).prop_map(|(source, filter, counts)| Query {
            source,
            filter: filter.map(Box::new),
            counts,
        })
    })
}

fn expression() -> impl Strategy<Value = Expression> {
    let leaf = prop_oneof![
        2 => Just(Expression::Literal),
        1 => Just(Expression::Column),
        1 => query().prop_map(|query| Expression::Subquery(Box::new(query))),
    ];
    leaf.prop_recursive(2, 4, 2, |inner| {
        (inner.clone(), inner).prop_map(|(one, other)| Expression::Sum(Box::new(one), Box::new(other)))
    })
}

fn statement() -> impl Strategy<Value = Statement> {
    let table = || 0..TABLES.len();
    let conflict = || prop_oneof![Just(Conflict::Default), Just(Conflict::Ignore), Just(Conflict::Replace)];
    let some = || prop::option::of(expression());
    prop_oneof![
        query().prop_map(Statement::Select),
        (table(), conflict(), expression(), some(), some()).prop_map(
            |(table, conflict, value, upsert, returning)| Statement::Insert {
                table,
                conflict,
                value,
                upsert,
                returning
            }
        ),
        (table(), conflict(), query()).prop_map(|(table, conflict, query)| Statement::InsertSelect {
            table,
            conflict,
            query
        }),
        (table(), conflict(), prop_oneof![Just("x"), Just("y")], expression(), some()).prop_map(
            |(table, conflict, column, value, filter)| Statement::Update {
                table,
                conflict,
                column,
                value,
                filter
            }
        ),
        (table(), some(), some()).prop_map(|(table, filter, returning)| Statement::Delete {
            table,
            filter,
            returning
        }),
    ]
}

/// Which verbs on which tables a role has: mostly what the statement needs, so that both answers are common.
fn grants() -> impl Strategy<Value = (Vec<(usize, usize)>, bool)> {
    (prop::collection::vec((0..TABLES.len(), 0..Verb::ALL.len()), 0..3), any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, ..ProptestConfig::default() })]

    #[test]
    fn a_statement_is_allowed_exactly_if_the_grant_table_has_all_that_it_needs(
        statement in statement(),
        (changed, generous) in grants(),
    ) {
        let mut writer = Writer { needs: Needs::new(), hopeless: false };
        let sql = writer.statement(&statement);
        // All that is needed and some that is not, or that less some.
        let mut held = writer.needs.clone();
        for (table, verb) in changed {
            let grant = (table, Verb::ALL[verb]);
            if generous { held.insert(grant); } else { held.remove(&grant); }
        }
        let words: Vec<(&str, String)> = TABLES.iter().enumerate().map(|(index, name)| {
            let verbs = held.iter().filter(|(table, _)| *table == index).map(|(_, verb)| verb.as_str());
            (*name, verbs.collect::<Vec<_>>().join(" "))
        }).collect();
        let words: Vec<_> = words.iter().map(|(name, verbs)| (*name, verbs.as_str())).collect();
        let (connection, judge, roles) = judge(SCHEMA, &words);
        prop_assert!(connection.prepare(&sql).is_ok(), "{}", sql);
        let lacking: Vec<_> = writer.needs.difference(&held)
            .map(|(table, verb)| format!("role clerk has no {} on activity.{}", verb.as_str(), TABLES[*table]))
            .collect();
        match judge.judge(&sql, roles) {
            (Ok(()), None) => prop_assert!(lacking.is_empty() && !writer.hopeless, "{} lacks {:?}", sql, lacking),
            (Err(_), Some(denied)) => prop_assert!(
                lacking.contains(&denied) || (writer.hopeless && denied.contains("REPLACE")),
                "{}: {} is none of {:?}", sql, denied, lacking
            ),
            other => prop_assert!(false, "{}: {:?}", sql, other),
        }
    }
}
