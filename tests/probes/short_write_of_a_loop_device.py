#!/usr/bin/env python3
"""Does a loop device report a write as done of which its file took only a part?

Needs root, and nothing of Penholder: a sparse file on a small tmpfs, a loop device on it, writes and syncs until there
is no space, and a look at what the file has. With an argument, requests are of so many KiB at most: with 4, a page of
the tmpfs, none can be taken in part.
"""
import mmap
import os
import subprocess
import sys
import tempfile

WRITE_BYTES = 256 << 10

if os.environ.get("PROBE_PRIVATE") is None:
    os.environ["PROBE_PRIVATE"] = "1"
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", "--", sys.executable, *sys.argv])

directory = tempfile.mkdtemp()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", directory], check=True)
image = os.path.join(directory, "image")
with open(image, "wb") as file:
    file.truncate(32 << 20)
with open(os.path.join(directory, "odd"), "wb") as file:
    file.write(bytes(7 * 4096))
device = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True).stdout.strip()
try:
    # A setting outlives its user; 0 is what the kernel chooses.
    limit = f"/sys/block/{os.path.basename(device)}/queue/max_sectors_kb"
    with open(limit, "w") as setting:
        setting.write(sys.argv[1] if len(sys.argv) > 1 else "0")
    descriptor = os.open(device, os.O_RDWR | os.O_DIRECT)
    buffer = mmap.mmap(-1, WRITE_BYTES)
    done = []
    for number in range(1, 100):
        buffer.seek(0)
        buffer.write(bytes([number]) * WRITE_BYTES)
        try:
            os.pwrite(descriptor, buffer, (number - 1) * WRITE_BYTES)
            os.fsync(descriptor)
        except OSError as error:
            print(f"write {number}: {error.strerror}")
            break
        done.append(number)
    os.close(descriptor)
    lies = 0
    with open(image, "rb") as file:
        for number in done:
            there = file.read(WRITE_BYTES).count(number)
            if there < WRITE_BYTES:
                lies += 1
                print(f"write {number}: write and fsync succeeded, {there} of {WRITE_BYTES} bytes are there")
    print(f"{len(done)} writes succeeded, {lies} of them were not there")
finally:
    with open(limit, "w") as setting:
        setting.write("0")
    subprocess.run(["losetup", "-d", device], check=True)
    subprocess.run(["umount", directory], check=True)
    os.rmdir(directory)
