//! Adds a project and reads it back: `cargo run -p penholder-examples --bin hello -- STORE`.

use penholder_client::{Client, Statement, read::Reader};

fn hello(store: &str) -> Result<(), Box<dyn std::error::Error>> {
    let insert = "INSERT INTO projects (name) VALUES (?1) ON CONFLICT DO NOTHING";
    let mut client = Client::connect(store)?;
    let outcome = client.execute(Statement::new("config", insert).bind("Penholder"))?;
    let (mut reader, count) = (Reader::open(store)?, "SELECT count(*) FROM projects");
    let projects: i64 = reader.snapshot()?.database("config")?.query_row(count, [], |row| row.get(0))?;
    println!("{outcome:?}\n{projects} projects");
    Ok(())
}

fn main() {
    let store = std::env::args().nth(1).unwrap_or_else(|| "store".into());
    let Err(error) = hello(&store) else { return };
    eprintln!("{error}"); // Says what to start: without a writer, the command stays queued and is applied later.
    std::process::exit(1);
}
