//! `penholder quarantine`: the files that the writer did not trust; looked at, put back, or dropped, beside a running
//! writer or without one. Nothing is locked: a file moves by one rename, and never onto another.

use std::io::ErrorKind;

use penholder_protocol::{Control, Layout, Sequence, sync_directory};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::Serialize;

use super::aside_args::{QuarantineAction, QuarantineArgs};
use super::exit::{Exit, Failure};
use super::line::CommandAsJson;
use super::output::{BAD, Output, STRONG};
use super::quarantined::{self, Content, Id, Known, Listed};
use super::{render, status};

/// What is printed of a file.
#[derive(Serialize)]
struct ListedAsJson<'l> {
    id: String,
    stream: String,
    number: u32,
    kind: &'static str,
    uid: u32,
    bytes: u64,
    quarantined: Option<String>,
    reason: Option<&'l str>,
}

fn as_json(listed: &Listed) -> ListedAsJson<'_> {
    let name = listed.id.name;
    ListedAsJson {
        id: listed.id.to_string(),
        stream: name.stream.to_string(),
        number: name.number,
        kind: quarantined::word(name.kind),
        uid: listed.uid,
        bytes: listed.bytes,
        quarantined: listed.quarantined.map(|time| format!("{time:.3}")),
        reason: listed.reason.as_deref(),
    }
}

/// What is printed of what is in a file.
#[derive(Serialize)]
struct ShownAsJson<'l> {
    #[serde(flatten)]
    listed: ListedAsJson<'l>,
    epoch: Option<u64>,
    /// Why nothing behind the commands can be read.
    damage: Option<&'l str>,
    torn_bytes: u64,
    /// The last command of the stream that has an outcome; `None`: no database knows the stream.
    decided: Option<u64>,
    /// Why it cannot be put back; `None`: it can.
    objection: Option<String>,
    commands: Vec<NumberedAsJson<'l>>,
}

#[derive(Serialize)]
struct NumberedAsJson<'l> {
    seq: u64,
    command: CommandAsJson<'l>,
}

/// Does what was asked for; without a word, lists.
pub(super) fn run(args: &QuarantineArgs, output: &mut Output) -> Result<Exit, Failure> {
    let layout = Layout::new(&args.store);
    let control = status::control(&layout)?;
    match &args.action {
        None | Some(QuarantineAction::List) => list(args, &layout, output),
        Some(QuarantineAction::Show { id, commands }) => {
            show(args, &layout, &control, id.parse()?, *commands, output)
        }
        Some(QuarantineAction::Release { ids }) => {
            each(args, ids, "released", output, |id| release(&layout, &control, id))
        }
        Some(QuarantineAction::Drop { ids }) => {
            each(args, ids, "dropped", output, |id| drop_one(&layout, id))
        }
    }
}

fn list(args: &QuarantineArgs, layout: &Layout, output: &mut Output) -> Result<Exit, Failure> {
    let all = quarantined::list(layout)?;
    if args.json {
        all.iter().try_for_each(|listed| output.json(&as_json(listed)))?;
        return Ok(Exit::Ok);
    }
    if all.is_empty() {
        output.remark("nothing in quarantine");
        return Ok(Exit::Ok);
    }
    let row = |listed: &Listed| {
        vec![
            listed.id.to_string(),
            listed.quarantined.map(|time| format!("{time:.3}")).unwrap_or_default(),
            listed.uid.to_string(),
            render::bytes(listed.bytes),
            listed.reason.clone().unwrap_or_else(|| "(lost)".to_owned()),
        ]
    };
    let rows = all.iter().map(row).collect();
    let table = render::words(output, &["id", "quarantined", "uid", "size", "reason"], rows);
    output.line(table)?;
    Ok(Exit::Ok)
}

fn show(
    args: &QuarantineArgs,
    layout: &Layout,
    control: &Control,
    id: Id,
    only_commands: bool,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let listed = quarantined::look(layout, id)?;
    let content = quarantined::read(layout, &listed, control)?;
    let known = quarantined::known(layout, control, listed.id.name.stream)?;
    let objection = quarantined::objection(&content, known, control);
    let decided = match known {
        Known::UpTo(sequence) => sequence,
        Known::Nothing => Sequence(0),
    };
    if only_commands {
        let mut waiting = content.commands.iter().filter(|(sequence, _)| *sequence > decided);
        waiting.try_for_each(|(_, command)| output.json(&CommandAsJson(command)))?;
        return Ok(Exit::Ok);
    }
    if args.json {
        let numbered = content
            .commands
            .iter()
            .map(|(sequence, command)| NumberedAsJson { seq: sequence.0, command: CommandAsJson(command) });
        output.json(&ShownAsJson {
            listed: as_json(&listed),
            epoch: content.header.as_ref().map(|header| header.epoch.0),
            damage: content.damage.as_deref(),
            torn_bytes: content.torn_bytes,
            decided: (known != Known::Nothing).then_some(decided.0),
            objection,
            commands: numbered.collect(),
        })?;
        return Ok(Exit::Ok);
    }
    print(&listed, &content, known, objection.as_deref(), output)?;
    Ok(Exit::Ok)
}

fn print(
    listed: &Listed,
    content: &Content,
    known: Known,
    objection: Option<&str>,
    output: &mut Output,
) -> Result<(), Failure> {
    let label = |word: &str| output.paint(STRONG, format!("{word:<10}"));
    let reason = listed.reason.as_deref().unwrap_or("lost in a power cut");
    let reason = output.paint(BAD, render::printable(reason));
    let readable = match (content.commands.first(), content.last()) {
        (Some((first, _)), Some(last)) => format!("commands {first} to {last}"),
        _ => "no command".to_owned(),
    };
    let end = match &content.damage {
        Some(damage) => format!(", then: {damage}"),
        None if content.torn_bytes > 0 => {
            format!(", and {} that were never whole", render::bytes(content.torn_bytes))
        }
        None => String::new(),
    };
    let decided = match known {
        Known::UpTo(sequence) => format!("up to command {sequence}"),
        Known::Nothing => "no database knows the stream".to_owned(),
    };
    let next = match objection {
        None => format!("it can be put back: penholder quarantine STORE release {}", listed.id),
        Some(objection) => format!("it cannot be put back: {objection}"),
    };
    let lines = [
        format!("{} {}", label("file"), listed.id),
        format!("{} uid {}, {}", label("from"), listed.uid, render::bytes(listed.bytes)),
        format!("{} {reason}", label("reason")),
        format!("{} {readable}{}", label("readable"), render::printable(&end)),
        format!("{} {decided}", label("decided")),
        format!("{} {next}", label("next")),
    ];
    lines.into_iter().try_for_each(|line| output.line(line))?;
    content.commands.iter().try_for_each(|(_, command)| output.json(&CommandAsJson(command)))
}

/// Does one thing to each file; the worst end counts, and one that fails does not keep the others.
fn each(
    args: &QuarantineArgs,
    ids: &[String],
    done: &'static str,
    output: &mut Output,
    act: impl Fn(&Id) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let ids = ids.iter().map(|id| id.parse()).collect::<Result<Vec<Id>, _>>()?;
    let mut worst = Exit::Ok;
    for id in ids {
        let error = match act(&id) {
            Ok(()) => None,
            Err(Failure::Pipe) => return Err(Failure::Pipe),
            Err(Failure::Said { exit, message }) => {
                worst = worst.or_worse(exit);
                Some(message)
            }
        };
        if args.json {
            let status = if error.is_none() { done } else { "failed" };
            output.json(&serde_json::json!({"id": id.to_string(), "status": status, "message": error}))?;
        } else if let Some(message) = error {
            output.complain(&message);
        } else {
            output.line(format!("{done} {id}"))?;
        }
    }
    Ok(worst)
}

/// Puts a file back into the spool, if the writer will take it: under its name, with its owner, so as what it was.
fn release(layout: &Layout, control: &Control, id: &Id) -> Result<(), Failure> {
    let listed = quarantined::look(layout, id.clone())?;
    let content = quarantined::read(layout, &listed, control)?;
    let known = quarantined::known(layout, control, id.name.stream)?;
    if let Some(objection) = quarantined::objection(&content, known, control) {
        return Err(Failure::new(format!(
            "{id} is not put back, because the writer would put it aside again: {objection}. What is readable of it \
             can be submitted anew: penholder quarantine STORE show {id} --commands | penholder exec STORE --stdin"
        )));
    }
    let place = layout.segment(id.name);
    match renameat_with(CWD, &listed.path, CWD, &place, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            return Err(Failure::new(format!("{} is in the spool again: {id} is not put back", id.name)));
        }
        Err(error) => return Err(Failure::on(format!("cannot move {id} into the spool"))(error)),
    }
    forget_reason(layout, id)?;
    for directory in [layout.spool(), layout.quarantine()] {
        sync_directory(&directory).map_err(Failure::on(format!("cannot sync {}", directory.display())))?;
    }
    Ok(())
}

fn drop_one(layout: &Layout, id: &Id) -> Result<(), Failure> {
    let listed = quarantined::look(layout, id.clone())?;
    let removed = if listed.is_directory {
        std::fs::remove_dir_all(&listed.path)
    } else {
        std::fs::remove_file(&listed.path)
    };
    removed.map_err(Failure::on(format!("cannot remove {id}")))?;
    forget_reason(layout, id)?;
    let directory = layout.quarantine();
    sync_directory(&directory).map_err(Failure::on(format!("cannot sync {}", directory.display())))
}

fn forget_reason(layout: &Layout, id: &Id) -> Result<(), Failure> {
    match std::fs::remove_file(quarantined::reason_path(layout, id)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Failure::on(format!("cannot remove the reason of {id}"))(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
