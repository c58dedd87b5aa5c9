//! What a ledger client submits: decided by its number alone, so that the verifier knows it without being told.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use penholder_protocol::{Code, Command, Statement, Text};

/// A small seeded generator (`SplitMix64`): the same numbers on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }

    /// Puts things into an order of which each is as likely as the other.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, usize::try_from(self.below(last as u64 + 1)).unwrap());
        }
    }
}

/// What a command does to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Two statements over activity.
    Activity,
    /// Two statements over config.
    Config,
    /// Four statements, two over each database.
    Both,
    /// One statement over activity; a trigger bumps the counter.
    Single,
    /// Inserts into activity, then fails its expectation: must leave nothing.
    FailsExpectation,
    /// Inserts into both, then breaks a constraint in activity: must leave nothing in either.
    FailsInBoth,
    /// One statement that breaks a constraint.
    FailsConstraint,
}

impl Kind {
    /// Whether the command leaves a row in this database.
    #[must_use]
    pub fn writes(self, database: &str) -> bool {
        match self {
            Self::Activity | Self::Single => database == "activity",
            Self::Config => database == "config",
            Self::Both => true,
            Self::FailsExpectation | Self::FailsInBoth | Self::FailsConstraint => false,
        }
    }

    /// Why the command must be rejected; `None` if it must be applied.
    #[must_use]
    pub fn rejection(self) -> Option<Code> {
        match self {
            Self::Activity | Self::Single | Self::Config | Self::Both => None,
            Self::FailsExpectation => Some(Code::Expectation),
            Self::FailsInBoth | Self::FailsConstraint => Some(Code::Constraint),
        }
    }
}

/// Which kinds a client submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Every kind.
    All,
    /// Mostly commands over both databases.
    Both,
    /// Only commands over activity that succeed.
    Activity,
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Both => "both",
            Self::Activity => "activity",
        })
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "all" => Ok(Self::All),
            "both" => Ok(Self::Both),
            "activity" => Ok(Self::Activity),
            other => Err(format!("no such mix: {other}")),
        }
    }
}

/// The commands of one client.
#[derive(Clone, Debug)]
pub struct Plan {
    client: u64,
    mix: Mix,
    texts: [[Arc<Text>; 5]; 2],
}

impl Plan {
    /// The plan of the client with this number.
    #[must_use]
    pub fn new(client: u64, mix: Mix) -> Self {
        let texts = |database: &str| {
            [
                "INSERT INTO ledger (client, sequence, nonce) VALUES (?1, ?2, ?3)",
                "UPDATE counter SET count = count + 1 WHERE id = 0",
                "UPDATE counter SET count = count + 1 WHERE id IN (0, 1)",
                "INSERT INTO ledger (client, sequence, nonce, bump) VALUES (?1, ?2, ?3, 1)",
                "UPDATE counter SET count = count + 1 WHERE id = 99",
            ]
            .map(|sql| Text::new(database, sql))
        };
        Self { client, mix, texts: [texts("config"), texts("activity")] }
    }

    /// What command number `sequence` does.
    #[must_use]
    pub fn kind(&self, sequence: u64) -> Kind {
        let draw = Random::new(self.nonce(sequence).cast_unsigned()).below(100);
        match (self.mix, draw) {
            (Mix::All, 0..40) | (Mix::Activity, 0..70) => Kind::Activity,
            (Mix::All, 40..60) => Kind::Config,
            (Mix::All, 60..80) | (Mix::Both, 0..85) => Kind::Both,
            (Mix::All, 80..90) | (Mix::Activity, _) => Kind::Single,
            (Mix::All, 90..94) => Kind::FailsExpectation,
            (Mix::All, 94..97) | (Mix::Both, _) => Kind::FailsInBoth,
            (Mix::All, _) => Kind::FailsConstraint,
        }
    }

    /// The number that the row of command `sequence` must carry.
    #[must_use]
    pub fn nonce(&self, sequence: u64) -> i64 {
        let bits = Random::new(self.client.wrapping_mul(0x1_0000_0001) ^ sequence.rotate_left(40)).bits();
        (bits >> 1).cast_signed()
    }

    /// The command with number `sequence`.
    #[must_use]
    pub fn command(&self, sequence: u64) -> Command {
        let [config, activity] = &self.texts;
        let insert = |text: &Arc<Text>, nonce: i64| {
            Statement::of(Arc::clone(text))
                .bind(self.client.cast_signed())
                .bind(sequence.cast_signed())
                .bind(nonce)
        };
        let count = |text: &Arc<Text>, rows: u64| Statement::of(Arc::clone(text)).expect(rows);
        let nonce = self.nonce(sequence);
        let command = Command::new();
        match self.kind(sequence) {
            Kind::Activity => command.and(insert(&activity[0], nonce)).and(count(&activity[1], 1)),
            Kind::Config => command.and(insert(&config[0], nonce)).and(count(&config[1], 1)),
            Kind::Both => command
                .and(insert(&config[0], nonce))
                .and(insert(&activity[0], nonce))
                .and(count(&activity[2], 2))
                .and(count(&config[2], 2)),
            Kind::Single => command.and(insert(&activity[3], nonce)),
            Kind::FailsExpectation => command.and(insert(&activity[0], nonce)).and(count(&activity[4], 1)),
            Kind::FailsInBoth => command
                .and(insert(&config[0], nonce))
                .and(count(&config[2], 2))
                .and(insert(&activity[0], nonce))
                .and(insert(&activity[0], -1)),
            Kind::FailsConstraint => command.and(insert(&activity[3], -1)),
        }
    }
}
