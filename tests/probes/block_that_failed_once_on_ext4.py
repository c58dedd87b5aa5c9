#!/usr/bin/env python3
"""Does ext4 keep what is written to a block whose first write failed, once writes succeed again?

Needs root, and nothing of Penholder: an ext4 on a loop device on a small tmpfs; a file that grows while there is no
space below; space; the same bytes once more, synced with success; unmount, mount, look. With the argument "forget",
the kernel is told to forget the pages (POSIX_FADV_DONTNEED) before they are written again.
"""
import os
import subprocess
import sys
import tempfile

PART_BYTES = 64 << 10

if os.environ.get("PROBE_PRIVATE") is None:
    os.environ["PROBE_PRIVATE"] = "1"
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", "--", sys.executable, *sys.argv])


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def sync(descriptor):
    try:
        os.fdatasync(descriptor)
        return "succeeded"
    except OSError as error:
        return error.strerror


directory = tempfile.mkdtemp()
below, above = os.path.join(directory, "below"), os.path.join(directory, "above")
os.mkdir(below)
os.mkdir(above)
run("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", below)
image = os.path.join(below, "image")
with open(image, "wb") as file:
    file.truncate(64 << 20)
options = "lazy_itable_init=0,lazy_journal_init=0,nodiscard,packed_meta_blocks=1"
run("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4", "-E", options, image)
run("fallocate", "--keep-size", "--offset", "0", "--length", "10MiB", image)
run("mount", "-o", "loop", image, above)
device = os.path.basename(run("findmnt", "-no", "SOURCE", above))
limit = f"/sys/block/{device}/queue/max_sectors_kb"
with open(limit, "w") as setting:
    setting.write("4")

path = os.path.join(above, "file")
descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
os.pwrite(descriptor, b"A" * PART_BYTES, 0)
print("part 1:", sync(descriptor))
filler = open(os.path.join(below, "filler"), "wb", buffering=0)
try:
    while True:
        filler.write(bytes(4096))
except OSError:
    pass
os.pwrite(descriptor, b"B" * PART_BYTES, PART_BYTES)
print("part 2, without space:", sync(descriptor))
filler.close()
os.unlink(filler.name)
if "forget" in sys.argv[1:]:
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
os.pwrite(descriptor, b"B" * PART_BYTES, PART_BYTES)
print("part 2 again, with space:", sync(descriptor))
os.pwrite(descriptor, b"C" * PART_BYTES, 2 * PART_BYTES)
print("part 3:", sync(descriptor))
os.close(descriptor)
run("umount", above)
run("mount", "-o", "loop", image, above)
with open(path, "rb") as file:
    parts = [file.read(PART_BYTES)[:1] for _ in range(3)]
print("after unmount and mount:", parts, "all there" if parts == [b"A", b"B", b"C"] else "LOST")
# A setting outlives its user; 0 is what the kernel chooses.
with open(limit, "w") as setting:
    setting.write("0")
run("umount", above)
run("umount", below)
