/* nat: an Internet of routers and hosts in one process, to see who reaches whom behind which NAT. Not one packet leaves the machine.
 *
 *   nat PREFIX DELAY_MS NODE...
 *
 * A NODE is a router, ROUTER=KIND[+hairpin][+noudp]:BEHIND:ADDRESS, or a host, HOST:BEHIND:ADDRESS[,ADDRESS6]. BEHIND is a router that
 * was named before, or - for the open Internet. Every host is a network namespace PREFIX-HOST (made here, removed at the end) with one
 * TUN device and no other way out. Hosts behind one router are one LAN. KIND, after RFC 4787 (sections 4 and 5):
 *
 *   full  one outer port per inner port, open to all        addr  the same, to hosts that were sent to
 *   port  the same, to host and port that were sent to      sym   an outer port, at random, per inner port and destination
 *   fw    no translation; lets in what answers (RFC 6092)   fwd   as port, and every port of the router leads to its first host
 *
 * An outer port is the inner one where that is free, but for sym. Strangers' packets are dropped. +hairpin: packets from inside to
 * the router's own address come back in. +noudp: no UDP passes. Packets through the Internet take DELAY_MS each way.
 *
 * "count" on standard input prints "flow FROM TO lan|net BYTES CONNECTIONS" for all pairs of hosts, then "end"; "reset" forgets it. It
 * is counted where packets arrive; connections are SYNs. It prints "ready" and runs until its standard input ends. Needs root.
 *
 * cc -O2 -o nat nat.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define MTU 1500
#define MAX 48         /* hosts, and routers */
#define FLOWS 4096     /* of a router; the oldest gives way */
#define WAITING 32768  /* packets on their way through the Internet; more are dropped */
enum kind { FULL, ADDR, PORT, SYM, FW, FWD };

struct flow { uint8_t proto; uint16_t inner_port, outer_port, port; uint8_t inner[16], to[16]; };
struct router { char name[32]; enum kind kind; int hairpin, noudp, behind; uint32_t address; struct flow flows[FLOWS]; unsigned used; };
struct host { char name[32], ip[96], ip6[96]; int behind, fd; uint32_t address; uint8_t address6[16]; };
struct count { uint64_t bytes, syns; };
struct packet { uint64_t due; int from, at, inward; uint16_t length; unsigned char data[MTU]; };

static struct router routers[MAX];
static struct host hosts[MAX];
static int router_count, host_count;
static struct count counts[MAX][MAX][2];
static struct packet *ring[WAITING];
static unsigned head, tail;
static uint64_t delay;
static volatile sig_atomic_t stop;
static uint64_t state = 88172645463325252ull;

static uint64_t now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
static uint32_t draw(void) { state ^= state << 13; state ^= state >> 7; state ^= state << 17; return state >> 32; }
static void on_signal(int s) { (void)s; stop = 1; }
static void die(const char *what) { perror(what); exit(1); }
static void run(const char *format, const char *a, const char *b) { char line[512]; snprintf(line, sizeof line, format, a, b); if (system(line)) exit(1); }

static void make(const char *prefix, struct host *h) {
    char ns[80], path[160], line[160];
    snprintf(ns, sizeof ns, "%s-%s", prefix, h->name);
    run("ip netns add %s%s", ns, "");
    snprintf(path, sizeof path, "/run/netns/%s", ns);
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), there = open(path, O_RDONLY | O_CLOEXEC);
    if (home < 0 || there < 0 || setns(there, CLONE_NEWNET)) die(path);
    h->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    struct ifreq r; memset(&r, 0, sizeof r);
    strcpy(r.ifr_name, "net0"); r.ifr_flags = IFF_TUN | IFF_NO_PI;
    if (h->fd < 0 || ioctl(h->fd, TUNSETIFF, &r)) die("tun");
    if (setns(home, CLONE_NEWNET)) die("setns");
    close(home); close(there);
    run("ip -n %s link set lo up%s", ns, "");
    snprintf(line, sizeof line, "%s/%d", h->ip, h->behind < 0 ? 32 : 24);
    run("ip -n %s addr add %s dev net0", ns, line);
    run("ip -n %s link set net0 up txqueuelen 1000 mtu 1500%s", ns, "");
    run("ip -n %s route add default dev net0%s", ns, "");
    if (*h->ip6) {
        run("ip -n %s addr add %s/128 dev net0 nodad", ns, h->ip6);
        run("ip -n %s -6 route add default dev net0%s", ns, "");
    }
}

/* Where the parts of a packet are. */
static int is6(const unsigned char *p) { return p[0] >> 4 == 6; }
static unsigned char *upper(unsigned char *p) { return p + (is6(p) ? 40 : (p[0] & 15) * 4); }
static int proto(const unsigned char *p) { return is6(p) ? p[6] : p[9]; }
static int whole(const struct packet *k) {
    const unsigned char *p = k->data;
    if (k->length < 28 || (p[0] >> 4 != 4 && p[0] >> 4 != 6) || (is6(p) && k->length < 48)) return 0;
    return (proto(p) == 6 && upper((unsigned char *)p) + 20 <= p + k->length) || (proto(p) == 17 && upper((unsigned char *)p) + 8 <= p + k->length);
}
static void address(const unsigned char *p, int source, uint8_t out[16]) {
    memset(out, 0, 16);
    if (is6(p)) memcpy(out, p + (source ? 8 : 24), 16); else memcpy(out, p + (source ? 12 : 16), 4);
}
static uint16_t port(unsigned char *p, int source) { uint16_t v; memcpy(&v, upper(p) + (source ? 0 : 2), 2); return ntohs(v); }
static void patch(unsigned char *sum, const unsigned char *was, const unsigned char *is, int length) {
    uint32_t s = (uint16_t)~(sum[0] << 8 | sum[1]);
    for (int i = 0; i < length; i += 2) s += (uint16_t)~(was[i] << 8 | was[i + 1]) + (is[i] << 8 | is[i + 1]);
    while (s >> 16) s = (s & 0xffff) + (s >> 16);
    s = ~s; sum[0] = s >> 8; sum[1] = s;
}
static void rewrite(unsigned char *p, int source, uint32_t ip, uint16_t to) {
    unsigned char *u = upper(p), *sum = proto(p) == 6 ? u + 16 : u + 6, *at = p + (source ? 12 : 16), *ports = u + (source ? 0 : 2);
    unsigned char new_ip[4], new_port[2] = {to >> 8, to & 255};
    memcpy(new_ip, &ip, 4);
    patch(p + 10, at, new_ip, 4);
    if (proto(p) == 6 || sum[0] || sum[1]) { patch(sum, at, new_ip, 4); patch(sum, ports, new_port, 2); }
    memcpy(at, new_ip, 4); memcpy(ports, new_port, 2);
}

static int taken(struct router *r, int pr, uint16_t outer) {
    for (unsigned i = 0; i < FLOWS; i++) if (r->flows[i].proto == pr && r->flows[i].outer_port == outer) return 1;
    return 0;
}
/* A packet leaves through a router: its source becomes the router's. */
static void outward(struct router *r, unsigned char *p) {
    struct flow f = {.proto = proto(p), .inner_port = port(p, 1), .port = port(p, 0)}, *found = NULL;
    address(p, 1, f.inner); address(p, 0, f.to);
    int outer = -1;
    for (unsigned i = 0; i < FLOWS; i++) {
        struct flow *g = &r->flows[i];
        if (g->proto != f.proto || g->inner_port != f.inner_port || memcmp(g->inner, f.inner, 16)) continue;
        if (g->port == f.port && !memcmp(g->to, f.to, 16)) { found = g; break; }
        if (r->kind != SYM) outer = g->outer_port;
    }
    if (!found) {
        if (outer < 0) {
            outer = f.inner_port;
            while (r->kind != FW && (r->kind == SYM ? 1 : taken(r, f.proto, outer))) {
                outer = 20000 + draw() % 40000;
                if (!taken(r, f.proto, outer)) break;
            }
        }
        f.outer_port = outer;
        found = &r->flows[r->used++ % FLOWS];
        *found = f;
    }
    if (r->kind != FW) rewrite(p, 1, r->address, found->outer_port);
}
/* A packet comes to a router from outside; 0 if it stays there. */
static int inward(struct router *r, unsigned char *p, int index) {
    uint8_t from[16], to[16];
    address(p, 1, from); address(p, 0, to);
    for (unsigned n = 0; n < FLOWS; n++) {
        struct flow *g = &r->flows[n];
        if (g->proto != proto(p) || g->outer_port != port(p, 0)) continue;
        if (r->kind == FW && memcmp(g->inner, to, 16)) continue;
        int known_host = !memcmp(g->to, from, 16), known = known_host && g->port == port(p, 1);
        if (!(r->kind == FULL || (r->kind == ADDR && known_host) || known)) continue;
        uint32_t inner; memcpy(&inner, g->inner, 4);
        if (r->kind != FW) rewrite(p, 0, inner, g->inner_port);
        return 1;
    }
    for (int i = 0; r->kind == FWD && i < host_count; i++)
        if (hosts[i].behind == index) { rewrite(p, 0, hosts[i].address, port(p, 0)); return 1; }
    return 0;
}
static int to_host(const unsigned char *p, int behind) {
    uint8_t to[16]; address(p, 0, to);
    for (int i = 0; i < host_count; i++)
        if (hosts[i].behind == behind && !memcmp(to, is6(p) ? hosts[i].address6 : (uint8_t *)&hosts[i].address, is6(p) ? 16 : 4)) return i;
    return -1;
}
static int to_router(const unsigned char *p, int behind) {
    uint8_t to[16]; address(p, 0, to);
    for (int i = 0; i < router_count; i++) {
        if (routers[i].behind != behind) continue;
        if (!is6(p) && routers[i].kind != FW && !memcmp(to, &routers[i].address, 4)) return i;
        if (routers[i].kind == FW && to_host(p, i) >= 0) return i;
    }
    return -1;
}
static void arrive(struct packet *k, int host, int over_net) {
    struct count *c = &counts[k->from][host][over_net];
    c->bytes += k->length;
    if (proto(k->data) == 6 && (upper(k->data)[13] & 0x12) == 2) c->syns++;
    if (write(hosts[host].fd, k->data, k->length) < 0) {}
}
/* Inwards from a network, which a router has inside or which is the Internet. */
static void descend(struct packet *k, int network) {
    for (int hops = 0; hops < MAX; hops++) {
        int host = to_host(k->data, network), r = to_router(k->data, network);
        if (host >= 0) { arrive(k, host, 1); return; }
        if (r < 0 || (routers[r].noudp && proto(k->data) == 17) || !inward(&routers[r], k->data, r)) return;
        network = r;
    }
}
static void leave(int from, struct packet *k) {
    int network = hosts[from].behind;
    for (;;) {
        int host = to_host(k->data, network);
        if (host >= 0 && network >= 0 && network == hosts[from].behind) { arrive(k, host, 0); return; }
        if (host >= 0 || to_router(k->data, network) >= 0 || network < 0) break;
        struct router *r = &routers[network];
        if (r->noudp && proto(k->data) == 17) return;
        uint8_t to[16]; address(k->data, 0, to);
        int own = !is6(k->data) && r->kind != FW && !memcmp(to, &r->address, 4);
        outward(r, k->data);
        if (own) { if (!r->hairpin || !inward(r, k->data, network)) return; break; }
        network = r->behind;
    }
    if (head - tail >= WAITING) return;
    struct packet *copy = malloc(sizeof *copy);
    memcpy(copy, k, sizeof *copy);
    copy->due = now() + delay; copy->at = network;
    ring[head++ % WAITING] = copy;
}
static void deliver(void) {
    while (tail != head && ring[tail % WAITING]->due <= now()) {
        struct packet *k = ring[tail++ % WAITING];
        descend(k, k->at);
        free(k);
    }
}
static void take(int from) {
    struct packet k;
    for (int n = 0; n < 256; n++) {
        ssize_t length = read(hosts[from].fd, k.data, MTU);
        if (length <= 0) return;
        k.length = length; k.from = from;
        if (!whole(&k)) continue;
        /* A host may change its address. */
        if (!is6(k.data)) memcpy(&hosts[from].address, k.data + 12, 4);
        leave(from, &k);
    }
}
static int command(void) {
    char line[64];
    ssize_t length = read(0, line, sizeof line - 1);
    if (length <= 0) return 0;
    if (line[0] == 'r') memset(counts, 0, sizeof counts);
    for (int a = 0; line[0] == 'c' && a < host_count; a++)
        for (int b = 0; b < host_count; b++)
            for (int net = 0; net < 2; net++) {
                struct count *c = &counts[a][b][net];
                if (c->bytes) printf("flow %s %s %s %llu %llu\n", hosts[a].name, hosts[b].name, net ? "net" : "lan",
                                     (unsigned long long)c->bytes, (unsigned long long)c->syns);
            }
    printf("end\n"); fflush(stdout);
    return 1;
}
static int router_named(const char *name) {
    for (int i = 0; i < router_count; i++) if (!strcmp(routers[i].name, name)) return i;
    return -1;
}
static int parse(char *word) {
    static const char *kinds[] = {"full", "addr", "port", "sym", "fw", "fwd"};
    char name[32], kind[64], behind[32], rest[96];
    if (sscanf(word, "%31[^=:]=%63[^:]:%31[^:]:%95s", name, kind, behind, rest) == 4) {
        struct router *r = &routers[router_count];
        char *plus = strchr(kind, '+');
        r->hairpin = strstr(kind, "+hairpin") != NULL; r->noudp = strstr(kind, "+noudp") != NULL;
        if (plus) *plus = 0;
        int found = -1;
        for (int i = 0; i < 6; i++) if (!strcmp(kind, kinds[i])) found = i;
        if (found < 0 || router_count == MAX) return 0;
        strcpy(r->name, name); r->kind = found; r->behind = router_named(behind);
        if (r->kind != FW && inet_pton(AF_INET, rest, &r->address) != 1) return 0;
        router_count++;
        return 1;
    }
    if (sscanf(word, "%31[^=:]:%31[^:]:%95s", name, behind, rest) != 3 || host_count == MAX) return 0;
    struct host *h = &hosts[host_count++];
    char *comma = strchr(rest, ',');
    if (comma) { *comma = 0; snprintf(h->ip6, sizeof h->ip6, "%s", comma + 1); if (inet_pton(AF_INET6, h->ip6, h->address6) != 1) return 0; }
    strcpy(h->name, name); snprintf(h->ip, sizeof h->ip, "%s", rest); h->behind = router_named(behind);
    return inet_pton(AF_INET, h->ip, &h->address) == 1;
}
int main(int argc, char **argv) {
    if (argc < 4) { fprintf(stderr, "usage: nat PREFIX DELAY_MS NODE ...\n"); return 2; }
    delay = strtod(argv[2], NULL) * 1e6;
    for (int i = 3; i < argc; i++) if (!parse(argv[i])) { fprintf(stderr, "not a router or host: %s\n", argv[i]); return 2; }
    for (int i = 0; i < host_count; i++) make(argv[1], &hosts[i]);
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGINT, &act, 0); sigaction(SIGTERM, &act, 0);
    struct pollfd fds[MAX + 1];
    for (int i = 0; i < host_count; i++) fds[i] = (struct pollfd){.fd = hosts[i].fd, .events = POLLIN};
    fds[host_count] = (struct pollfd){.fd = 0, .events = POLLIN};
    printf("ready\n"); fflush(stdout);
    while (!stop) {
        struct timespec wait = {0}, *until = NULL;
        if (tail != head) {
            uint64_t t = now(), due = ring[tail % WAITING]->due, left = due > t ? due - t : 0;
            wait = (struct timespec){left / 1000000000ull, left % 1000000000ull}; until = &wait;
        }
        if (ppoll(fds, host_count + 1, until, NULL) > 0) {
            for (int i = 0; i < host_count; i++) if (fds[i].revents) take(i);
            if (fds[host_count].revents && !command()) stop = 1;
        }
        deliver();
    }
    for (int i = 0; i < host_count; i++) {
        char ns[80]; snprintf(ns, sizeof ns, "%s-%s", argv[1], hosts[i].name);
        close(hosts[i].fd);
        run("ip netns del %s%s", ns, "");
    }
    return 0;
}
