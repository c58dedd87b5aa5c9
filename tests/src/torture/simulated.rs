//! Power cuts on the simulated disk: every one that differs in a small file, then random ones that spare nothing.

use penholder_tests::disk::Script;

use crate::arena::Arena;
use crate::machine;
use crate::scenario::Skip;

/// States of one step that are tried; short scripts are gone through completely by `cargo test`.
const STATES_PER_STEP: usize = 16;

/// Random cuts of one recording.
const RANDOM_CUTS: u64 = 2000;

pub(crate) fn run(arena: &mut Arena) -> Result<(), Skip> {
    machine::need("cc")?;
    let mut complete = 0;
    let mut going = arena.next_round();
    while going {
        let script = Script::record();
        let mut cuts = script.states_of_small_files(&mut arena.random, STATES_PER_STEP).cuts;
        // Most runs end before the last.
        arena.random.shuffle(&mut cuts);
        for cut in cuts {
            let verdict = script.recover(&cut);
            assert!(verdict.problems.is_empty(), "{cut:?}: {verdict}");
            arena.count("simulated power cuts that took small files");
            arena.commands += verdict.applied + verdict.rejected;
            going = arena.next_round();
            if !going {
                break;
            }
        }
        complete += u64::from(going);
        for _ in 0..RANDOM_CUTS {
            if !going {
                break;
            }
            script.recover_from_random(&mut arena.random).expect_clean();
            arena.count("simulated power cuts that took anything");
            going = arena.next_round();
        }
    }
    arena.note(format!("{complete} times all cuts of a recording"));
    Ok(())
}
