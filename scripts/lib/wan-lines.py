#!/usr/bin/env python3
"""One file over long and lossy lines, which `wan.c` makes: a plain TCP stream and Shoal, in turn. `scripts/bench wan` calls it.

  wan-lines.py WAN BINARIES [--old BINARIES] [--runs N] [--control bbr|cubic] [LINE ...]

WAN is the compiled `wan.c`, BINARIES a folder with `tracker` and `client`, --old another build's. A LINE is
SEEDERS,LEECHERS,MIB,UP,DOWN,DELAY,LOSS: rates in Mbit/s, delay in ms one way (both ends together), loss in percent. Time runs
from the leechers' command until all have the file checked. Needs root, /dev/net/tun and iproute2. The namespaces and processes
end with it.
"""
import argparse, contextlib, hashlib, json, os, pathlib, statistics, subprocess, sys, tempfile, time

LINES = ["1,1,50,100,100,10,0", "1,1,100,100,100,50,0", "1,1,100,100,100,50,0.05", "1,1,100,100,100,50,0.5",
         "1,1,100,100,100,150,0", "1,1,100,100,100,150,1", "1,1,200,500,500,50,0", "4,1,100,25,100,40,0", "1,6,32,40,200,40,0"]
SEND = """import socket, sys
server = socket.create_server((sys.argv[1], 5001))
while True:
    taker, _ = server.accept()
    taker.sendfile(open(sys.argv[2], "rb"))
    taker.close()
"""
TAKE = """import socket, sys
giver, file = socket.create_connection((sys.argv[1], 5001)), open(sys.argv[2], "wb")
while block := giver.recv(1 << 18):
    file.write(block)
"""
TIMEOUT = 600


class Line:
    """A network of a tracker, seeders and leechers, and what runs on it."""

    def __init__(self, wan, words, control):
        self.seeders, self.leechers, self.mib = (int(word) for word in words.split(",")[:3])
        self.up, self.down, self.delay, self.loss = (float(word) for word in words.split(",")[3:])
        self.names = [f"s{i}" for i in range(self.seeders)] + [f"l{i}" for i in range(self.leechers)]
        self.address = {name: f"10.77.0.{number}" for number, name in enumerate(self.names, 10)} | {"t": "10.77.0.1"}
        self.prefix = f"wan{os.getpid()}"
        half, lost = self.delay / 2, self.loss / 2
        hosts = [f"t,{self.address['t']},0,0,{half / 2},0"]
        hosts += [f"{name},{self.address[name]},{self.up},{self.down},{half},{lost}" for name in self.names]
        self.wan = subprocess.Popen([wan, self.prefix, *hosts], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.processes = []
        assert self.wan.stdout.readline().strip() == "ready", "wan does not start"
        if control:
            for name in ["t", *self.names]:
                subprocess.run(["ip", "netns", "exec", f"{self.prefix}-{name}", "sysctl", "-qw",
                                f"net.ipv4.tcp_congestion_control={control}"], check=True)

    def start(self, host, *command, **how):
        command = ["ip", "netns", "exec", f"{self.prefix}-{host}", *map(str, command)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **how)
        self.processes.append(process)
        return process

    def until_listening(self, host, port):
        listening = ["ip", "netns", "exec", f"{self.prefix}-{host}", "ss", "-Hltn", f"sport = :{port}"]
        while not subprocess.run(listening, capture_output=True, text=True).stdout:
            time.sleep(0.02)

    def bound(self):
        megabits = self.mib * 8 * 1.048576
        given = self.seeders * self.up
        return max(megabits / given, self.leechers * megabits / (given + self.leechers * self.up), megabits / self.down)

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.wan.stdin.close()
        self.wan.wait()


def tcp(line, folder, source, copies, binaries):
    giver = line.names[0]
    line.start(giver, sys.executable, "-c", SEND, line.address[giver], source)
    line.until_listening(giver, 5001)
    began = time.monotonic()
    takers = [line.start(name, sys.executable, "-c", TAKE, line.address[giver], copy) for name, copy in copies.items()]
    for taker in takers:
        taker.wait(TIMEOUT)
    return time.monotonic() - began


class Client:
    def __init__(self, line, host, binaries, info, home):
        command = [f"{binaries}/client", f"{line.address[host]}:7000", info, "--json", "--data-dir", home]
        self.process = line.start(host, *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ok(self, command):
        self.process.stdin.write(command + "\n")
        for said in self.process.stdout:
            answer = json.loads(said)
            if "event" not in answer:
                assert answer.get("ok"), (command, answer)
                return answer
        raise SystemExit(f"the client ended at {command}")


def shoal(line, folder, source, copies, binaries):
    info = folder / "tracker_info.txt"
    info.write_text(f"{line.address['t']} 9001\n")
    data = ["--data-dir", folder / "tracker"]
    line.start("t", f"{binaries}/tracker", info, 1, *data, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    line.until_listening("t", 9001)
    clients = {name: Client(line, name, binaries, info, folder / f"home-{name}") for name in line.names}
    for name, client in clients.items():
        client.ok(f"create_user user-{name} a-password-of-{name}")
        client.ok(f"login user-{name} a-password-of-{name}")
    owner = clients[line.names[0]]
    owner.ok("create_group group")
    for name in line.names[1:]:
        clients[name].ok("join_group group")
        owner.ok(f"accept_request group user-{name}")
    for name in line.names[:line.seeders]:
        clients[name].ok(f"upload_file {source} group")
    began = time.monotonic()
    for name, copy in copies.items():
        clients[name].ok(f"download_file group {source.name} {copy}")
    while not all(clients[name].ok("show_downloads")["downloads"][0]["state"] == "C" for name in copies):
        assert time.monotonic() - began < TIMEOUT, "it takes too long"
        time.sleep(0.02)
    return time.monotonic() - began


def measure(job, words, options, binaries):
    """Seconds, for one run."""
    with contextlib.closing(Line(options.wan, words, options.control)) as line, \
            tempfile.TemporaryDirectory(dir=os.environ.get("SHOAL_BENCH_MEMORY", "/dev/shm")) as folder:
        folder = pathlib.Path(folder)
        source = folder / "file.bin"
        source.write_bytes(os.urandom(line.mib << 20))
        copies = {name: folder / f"{name}.bin" for name in line.names[line.seeders:]}
        seconds = job(line, folder, source, copies, binaries)
        right = hashlib.sha1(source.read_bytes()).digest()
        assert all(hashlib.sha1(copy.read_bytes()).digest() == right for copy in copies.values()), "a copy is not right"
        return seconds, line.bound()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("wan")
    parser.add_argument("binaries")
    parser.add_argument("lines", nargs="*", default=LINES)
    parser.add_argument("--old")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--control", help="congestion control; the system's own otherwise")
    options = parser.parse_intermixed_args()
    jobs = {"plain TCP, s": (tcp, None), "Shoal, s": (shoal, options.binaries)}
    if options.old:
        jobs["Shoal before, s"] = (shoal, options.old)
    print("Medians (least–most). Shoal ÷ TCP is of the medians.\n")
    print("| line | bound, s |", " | ".join(jobs), "| Shoal ÷ TCP |")
    print("|---" * (len(jobs) + 3) + "|")
    for words in options.lines:
        taken = {name: [] for name in jobs}
        for _ in range(options.runs):
            for name, (job, binaries) in jobs.items():
                seconds, bound = measure(job, words, options, binaries)
                taken[name].append(seconds)
        median = {name: statistics.median(seconds) for name, seconds in taken.items()}
        cells = [f"{median[name]:.1f} ({min(seconds):.1f}–{max(seconds):.1f})" for name, seconds in taken.items()]
        seeders, leechers, mib, up, _, delay, loss = words.split(",")
        name = f"{seeders} → {leechers}, {mib} MiB, {up} Mbit/s, {2 * float(delay):.0f} ms, {loss} % loss"
        print(f"| {name} | {bound:.1f} | {' | '.join(cells)} | {median['Shoal, s'] / median['plain TCP, s']:.2f} |", flush=True)


main()
