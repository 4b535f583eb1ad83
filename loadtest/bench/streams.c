/* A load client for streams: asks, and checks every byte of what comes.
 *
 *     streams --port P --request FILE --connections N --frames F
 *             (--seconds S | --total T) [--stagger-ms M] [--timeout-s T] [--loose] [--hold]
 *
 * One thread, epoll, keep-alive, closed loop: a connection asks again when its stream has ended. FILE holds
 * the request, head and body. With --seconds no stream begins after S seconds, and those under way may end;
 * with --total T streams are asked for, whatever the time. The first requests are spread over M ms.
 *
 * A stream is whole if its bytes are those of frames.h, all of them and in order, [DONE] the last, and the
 * answer ends properly; comment lines may stand between frames. With --loose, for gateways that write frames
 * anew, the numbers of the content must be all there and in order instead. Whatever else happens the stream
 * counts as lost. --hold keeps each stream open after its first frame, reports when all N have theirs, and
 * leaves when its input is closed.
 *
 * The report is a line of JSON: times in ms, from the request to the first byte of a frame and to the end.
 */
#define _GNU_SOURCE
#include "frames.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_ROOM 8192
#define LINE_ROOM 65536
#define BATCH 256

typedef enum { CLOSED, CONNECTING, IDLE, SENDING, HEAD, BODY } stage;
typedef enum { SIZE, SIZE_REST, BYTES, BYTES_END, TRAILER, OVER } chunk_stage;

typedef struct {
    int fd;
    stage stage;
    int is_used; /* a whole answer has come over this connection */
    int64_t asked, first;
    size_t sent;
    char head[HEAD_ROOM];
    size_t head_size;
    int is_chunked, trailer_size;
    chunk_stage chunk;
    long left; /* of the chunk, or of a body with a length */
    /* exact */
    size_t position;
    int frame, is_comment;
    /* loose */
    char *line;
    size_t line_size;
    int number, is_done;
} conn;

static struct {
    int port, connections, frames, stagger_ms, is_loose, is_hold;
    double seconds, timeout_s;
    long total;
    const char *request;
} options = {.connections = 1, .frames = 100, .timeout_s = 30};

static char *request;
static size_t request_size;
static char *expected;    /* the body of a whole stream */
static size_t *frame_end; /* in it, where each frame ends */
static int frame_count;   /* [DONE] among them */
static conn *conns;
static int epoll_fd, held;
static int64_t began, deadline, window_end;
static long begun, whole, lost, again, frames, frames_in_window, comments;
static uint32_t *firsts_us, *totals_us;
static size_t times, times_room;
static char first_error[320];

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void expect_stream(void) {
    size_t at = 0;
    frame_count = options.frames + 2;
    expected = malloc((size_t)frame_count * FRAME_ROOM);
    frame_end = malloc((size_t)frame_count * sizeof *frame_end);
    for (int i = 0; i <= options.frames; i++) frame_end[i] = at += write_frame(expected + at, i, options.frames, 1);
    memcpy(expected + at, FRAME_DONE, sizeof FRAME_DONE - 1);
    frame_end[frame_count - 1] = at + sizeof FRAME_DONE - 1;
}

/* ---- one connection's life */

static void watch(conn *c, int op, uint32_t events) {
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(epoll_fd, op, c->fd, &e);
}

static void hang_up(conn *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->stage = CLOSED;
    c->is_used = 0;
}

static void send_request(conn *c) {
    ssize_t n = send(c->fd, request + c->sent, request_size - c->sent, MSG_NOSIGNAL);
    if (n > 0) c->sent += (size_t)n;
    int is_sent = c->sent == request_size;
    if (!is_sent || c->stage == CONNECTING) watch(c, EPOLL_CTL_MOD, is_sent ? EPOLLIN : EPOLLIN | EPOLLOUT);
    if (is_sent && c->stage == SENDING) watch(c, EPOLL_CTL_MOD, EPOLLIN);
    c->stage = is_sent ? HEAD : SENDING;
}

static void dial(conn *c) {
    int one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)options.port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    connect(c->fd, (struct sockaddr *)&a, sizeof a);
    c->stage = CONNECTING;
    watch(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

static void ask(conn *c) {
    c->sent = c->head_size = c->position = c->line_size = 0;
    c->frame = c->is_comment = c->number = c->is_done = c->trailer_size = 0;
    c->first = 0;
    c->asked = now_ns();
    if (c->stage == CLOSED)
        dial(c);
    else
        send_request(c);
}

static void begin(conn *c) {
    if (options.total ? begun >= options.total : now_ns() >= deadline) {
        if (c->stage != CLOSED) c->stage = IDLE;
        return;
    }
    begun++;
    ask(c);
}

static void lose(conn *c, const char *why) {
    lost++;
    if (!first_error[0]) {
        size_t shown = c->head_size < 160 ? c->head_size : 160;
        int n = snprintf(first_error, 120, "%s, after %d frames: ", why, c->frame);
        for (size_t i = 0; i < shown; i++) {
            char ch = c->head[i];
            first_error[n++] = ch < ' ' || ch > '~' || ch == '"' || ch == '\\' ? ' ' : ch;
        }
    }
    hang_up(c);
    begin(c);
}

static void ended(conn *c) {
    int is_whole = options.is_loose ? c->is_done && c->number == options.frames - 1 : c->frame == frame_count;
    if (!is_whole) {
        lose(c, "the answer ends early");
        return;
    }
    if (times == times_room) {
        times_room = times_room * 2 + 4096;
        firsts_us = realloc(firsts_us, times_room * sizeof *firsts_us);
        totals_us = realloc(totals_us, times_room * sizeof *totals_us);
    }
    firsts_us[times] = (uint32_t)((c->first - c->asked) / 1000);
    totals_us[times++] = (uint32_t)((now_ns() - c->asked) / 1000);
    whole++;
    c->is_used = 1;
    c->stage = IDLE;
    if (strcasestr(c->head, "\r\nconnection: close")) hang_up(c);
    begin(c);
}

/* ---- the body: 0, or -1 when it is not what was expected */

static void count_frame(conn *c, int64_t now) {
    if (!c->first) {
        c->first = now;
        if (options.is_hold) held++;
    }
    c->frame++;
    frames++;
    if (now <= window_end) frames_in_window++;
}

static int at_boundary(const conn *c) {
    return c->position == (c->frame ? frame_end[c->frame - 1] : 0);
}

/* Step over a comment and the empty line behind it; returns the bytes taken. */
static size_t skip_comment(conn *c, const char *p, size_t size) {
    if (c->is_comment == 2) { /* its line is over: an empty one may follow */
        c->is_comment = 0;
        return *p == '\n';
    }
    const char *end = memchr(p, '\n', size);
    c->is_comment = end ? 2 : 1;
    return end ? (size_t)(end - p) + 1 : size;
}

static int feed_exact(conn *c, const char *p, size_t size, int64_t now) {
    while (size) {
        size_t n;
        if (c->is_comment || (*p == ':' && at_boundary(c))) {
            comments += !c->is_comment;
            n = skip_comment(c, p, size);
            p += n;
            size -= n;
            continue;
        }
        if (c->frame == frame_count) return -1;
        n = frame_end[c->frame] - c->position;
        if (n > size) n = size;
        if (memcmp(p, expected + c->position, n)) return -1;
        c->position += n;
        p += n;
        size -= n;
        if (c->position < frame_end[c->frame]) continue;
        if (c->frame == frame_count - 1)
            c->frame++; /* [DONE] is no frame to be counted */
        else
            count_frame(c, now);
    }
    return 0;
}

static int take_line(conn *c, const char *line, int64_t now) {
    const char *content;
    if (strncmp(line, "data:", 5)) return 0;
    if (c->is_done) return -1;
    if (strstr(line, "[DONE]")) {
        c->is_done = 1;
        return 0;
    }
    count_frame(c, now);
    if ((content = strstr(line, "\"w0")) && strlen(content) > 8) {
        if (atoi(content + 2) != c->number) return -1;
        c->number++;
    }
    return 0;
}

static int feed_loose(conn *c, const char *p, size_t size, int64_t now) {
    if (!c->line) c->line = malloc(LINE_ROOM);
    while (size) {
        const char *end = memchr(p, '\n', size);
        size_t n = end ? (size_t)(end - p) : size;
        if (c->line_size + n >= LINE_ROOM) return -1;
        memcpy(c->line + c->line_size, p, n);
        c->line_size += n;
        if (!end) return 0;
        c->line[c->line_size] = 0;
        c->line_size = 0;
        if (take_line(c, c->line, now)) return -1;
        p += n + 1;
        size -= n + 1;
    }
    return 0;
}

static int feed(conn *c, const char *p, size_t size, int64_t now) {
    return options.is_loose ? feed_loose(c, p, size, now) : feed_exact(c, p, size, now);
}

static int hex(char ch) {
    if (ch >= '0' && ch <= '9') return ch - '0';
    ch |= 32;
    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

/* One character of the framing between chunks. */
static int take_framing(conn *c, char ch) {
    int digit = hex(ch);
    switch (c->chunk) {
    case SIZE:
        if (digit >= 0) {
            c->left = c->left * 16 + digit;
            return c->left > 1 << 30 ? -1 : 0;
        }
        c->chunk = SIZE_REST;
        /* fall through */
    case SIZE_REST:
        if (ch == '\n') c->chunk = c->left ? BYTES : TRAILER;
        return 0;
    case BYTES_END:
        if (ch == '\n') c->chunk = SIZE;
        return ch == '\n' || ch == '\r' ? 0 : -1;
    case TRAILER:
        if (ch == '\n' && !c->trailer_size) c->chunk = OVER;
        c->trailer_size = ch == '\n' ? 0 : c->trailer_size + (ch != '\r');
        return 0;
    default:
        return -1; /* bytes after the end */
    }
}

static int take_body(conn *c, const char *p, size_t size, int64_t now) {
    while (size) {
        if (c->chunk != BYTES) {
            if (take_framing(c, *p)) return -1;
            p++;
            size--;
            continue;
        }
        size_t n = (size_t)c->left < size ? (size_t)c->left : size;
        if (feed(c, p, n, now)) return -1;
        p += n;
        size -= n;
        c->left -= (long)n;
        if (!c->left) c->chunk = c->is_chunked ? BYTES_END : OVER;
    }
    return 0;
}

/* Bytes of the head among these, once it is complete; 0 before; -1 if it is none we take. */
static long take_head(conn *c, const char *p, size_t size) {
    size_t had = c->head_size, n = size < HEAD_ROOM - 1 - had ? size : HEAD_ROOM - 1 - had;
    memcpy(c->head + had, p, n);
    c->head_size += n;
    char *end = memmem(c->head, c->head_size, "\r\n\r\n", 4);
    if (!end) return c->head_size == HEAD_ROOM - 1 ? -1 : 0;
    c->head_size = (size_t)(end - c->head) + 4;
    c->head[c->head_size] = 0;
    const char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->is_chunked = strcasestr(c->head, "\r\ntransfer-encoding: chunked") != NULL;
    c->chunk = c->is_chunked ? SIZE : BYTES;
    c->left = length ? atol(length + 17) : 0;
    if (strncmp(c->head, "HTTP/1.1 200", 12) || (!c->is_chunked && c->left <= 0)) return -1;
    return (long)(c->head_size - had);
}

static void closed_by_peer(conn *c) {
    int may_repeat = c->is_used && (c->stage == HEAD || c->stage == SENDING) && !c->head_size;
    if (c->stage == IDLE) {
        hang_up(c);
    } else if (may_repeat) { /* an idle connection was closed as the request went out on it */
        again++;
        hang_up(c);
        ask(c);
    } else {
        lose(c, "the connection was closed");
    }
}

static void readable(conn *c) {
    static char buffer[1 << 18];
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        closed_by_peer(c);
        return;
    }
    int64_t now = now_ns();
    const char *p = buffer;
    if (c->stage == HEAD) {
        long taken = take_head(c, p, (size_t)n);
        if (taken < 0) lose(c, "not a stream");
        if (taken <= 0) return;
        c->stage = BODY;
        p += taken;
        n -= taken;
    }
    if (c->stage != BODY || take_body(c, p, (size_t)n, now))
        lose(c, "other bytes than were sent");
    else if (c->chunk == OVER)
        ended(c);
}

static void connected(conn *c) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error)
        lose(c, strerror(error));
    else
        send_request(c);
}

static void on_event(conn *c, uint32_t events) {
    if (c->stage == CLOSED) return;
    if (c->stage == CONNECTING)
        connected(c);
    else if (c->stage == SENDING && events & EPOLLOUT)
        send_request(c);
    else
        readable(c);
}

/* ---- the run */

static int is_busy(const conn *c) {
    return c->stage != CLOSED && c->stage != IDLE;
}

static void check_times(int64_t now) {
    for (int i = 0; i < options.connections; i++)
        if (is_busy(&conns[i]) && now - conns[i].asked > (int64_t)(options.timeout_s * 1e9))
            lose(&conns[i], "not over in time");
}

/* Begin what is due of the first requests; returns how many have begun. */
static int begin_due(int next, int64_t now) {
    while (next < options.connections &&
           now - began >= options.stagger_ms * 1000000ll * next / options.connections)
        begin(&conns[next++]);
    return next;
}

static int is_over(int next) {
    if (options.is_hold) return held + lost >= options.connections;
    if (next < options.connections && !(options.total && begun >= options.total)) return 0;
    for (int i = 0; i < options.connections; i++)
        if (is_busy(&conns[i])) return 0;
    return 1;
}

static void run(void) {
    struct epoll_event events[BATCH];
    int next = 0;
    int64_t checked = began;
    while (!is_over(next)) {
        int64_t now = now_ns();
        next = begin_due(next, now);
        if (now - checked > 200000000) {
            check_times(now);
            checked = now;
        }
        int n = epoll_wait(epoll_fd, events, BATCH, next < options.connections ? 1 : 100);
        for (int i = 0; i < n; i++) on_event(events[i].data.ptr, events[i].events);
    }
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double at(const uint32_t *sorted, double share) {
    return times ? sorted[(size_t)(share * (double)(times - 1))] / 1000.0 : -1;
}

static void report(int64_t end) {
    int64_t window = (end < window_end ? end : window_end) - began;
    if (times) {
        qsort(firsts_us, times, sizeof *firsts_us, compare);
        qsort(totals_us, times, sizeof *totals_us, compare);
    }
    printf("{\"streams\":%ld,\"lost\":%ld,\"held\":%d,\"repeated\":%ld,\"comments\":%ld,\"frames\":%ld,"
           "\"frames_per_s\":%.1f,\"seconds\":%.3f,\"first_p50_ms\":%.3f,\"first_p99_ms\":%.3f,"
           "\"total_p50_ms\":%.3f,\"total_p99_ms\":%.3f,\"total_max_ms\":%.3f,\"first_error\":\"%s\"}\n",
           whole, lost, held, again, comments, frames, (double)frames_in_window / ((double)window / 1e9),
           (double)(end - began) / 1e9, at(firsts_us, 0.5), at(firsts_us, 0.99), at(totals_us, 0.5),
           at(totals_us, 0.99), at(totals_us, 1), first_error);
    fflush(stdout);
}

static int set_number(const char *name, const char *value) {
    if (!strcmp(name, "--port")) options.port = atoi(value);
    else if (!strcmp(name, "--connections")) options.connections = atoi(value);
    else if (!strcmp(name, "--frames")) options.frames = atoi(value);
    else if (!strcmp(name, "--stagger-ms")) options.stagger_ms = atoi(value);
    else if (!strcmp(name, "--seconds")) options.seconds = atof(value);
    else if (!strcmp(name, "--total")) options.total = atol(value);
    else if (!strcmp(name, "--timeout-s")) options.timeout_s = atof(value);
    else return -1;
    return 0;
}

static int read_options(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--loose")) options.is_loose = 1;
        else if (!strcmp(argv[i], "--hold")) options.is_hold = 1;
        else if (i + 1 == argc) return -1;
        else if (!strcmp(argv[i], "--request")) options.request = argv[++i];
        else if (set_number(argv[i], argv[i + 1])) return -1;
        else i++;
    }
    if (options.is_hold) options.total = options.connections;
    return options.port && options.request && options.frames > 0 && (options.seconds > 0 || options.total) ? 0 : -1;
}

static void read_request(void) {
    FILE *f = fopen(options.request, "rb");
    if (!f) {
        perror(options.request);
        exit(2);
    }
    fseek(f, 0, SEEK_END);
    request_size = (size_t)ftell(f);
    rewind(f);
    request = malloc(request_size);
    if (fread(request, 1, request_size, f) != request_size) exit(2);
    fclose(f);
}

int main(int argc, char **argv) {
    struct rlimit files;
    char byte;
    if (read_options(argc, argv)) {
        fprintf(stderr, "usage: see the head of streams.c\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    read_request();
    expect_stream();
    conns = calloc((size_t)options.connections, sizeof *conns);
    for (int i = 0; i < options.connections; i++) conns[i].fd = -1;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    began = now_ns();
    deadline = began + (int64_t)(options.seconds * 1e9);
    window_end = options.total ? INT64_MAX : deadline;
    run();
    report(now_ns());
    if (options.is_hold)
        while (read(0, &byte, 1) > 0) continue;
    return 0;
}
