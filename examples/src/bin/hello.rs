//! Adds a project and reads it back: `cargo run -p penholder-examples --bin hello -- STORE`.

use penholder_client::read::Reader;
use penholder_client::{Client, Statement};

fn hello(store: &str) -> Result<(), Box<dyn std::error::Error>> {
    let insert = "INSERT INTO projects (name) VALUES (?1) ON CONFLICT DO NOTHING";
    let mut client = Client::connect(store)?;
    let outcome = client.execute(Statement::new("config", insert).bind("Penholder"))?;
    let count = "SELECT count(*) FROM projects";
    let projects: i64 =
        Reader::open(store)?.snapshot()?.database("config")?.query_row(count, [], |row| row.get(0))?;
    println!("{outcome:?}\n{projects} projects");
    Ok(())
}

fn main() -> std::process::ExitCode {
    let store = std::env::args().nth(1).unwrap_or_else(|| "store".into());
    // Without a store or a writer, the error says what to start, and that the command stays queued.
    hello(&store).map_or_else(
        |error| {
            eprintln!("hello: {error}");
            1.into()
        },
        |()| 0.into(),
    )
}
