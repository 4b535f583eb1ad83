/* A scripted provider, fast enough not to be what a benchmark measures.
 *
 *     upstream PORT
 *
 * One thread, epoll, keep-alive, answers prepared beforehand. Listens on 127.0.0.1:
 *
 *     POST .../chat/completions   whole, or a stream if the body has "stream":true; the usage frame only
 *                                 if it has "include_usage":true; with /v2/ in the path in Straico's shape
 *     POST .../messages, .../responses, ...:generateContent, ...:streamGenerateContent
 *                                 the same answer in Anthropic's Messages, OpenAI's Responses and Gemini
 *     GET  .../models, /health    a short list; 200
 *     POST /control?frames=100&interval_ms=0&delay_ms=0&hold=0&burst=1&step=0
 *                                 for later requests: frames of a stream, the wait before each (0: back to
 *                                 back), the wait before an answer, whether a stream falls silent for good
 *                                 after its first burst, the frames of a burst, and whether a stream waits
 *                                 for POST /step before each further burst
 *     POST /step                  each stream that waits for it sends its next burst
 *
 * Each frame is one HTTP chunk, each burst one send(). Back to back, the streams take turns burst by burst.
 * Paced streams send one frame at a time.
 * Requests are framed by Content-Length. It ends with its parent.
 */
#define _GNU_SOURCE
#include "dialects.h"
#include "frames.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FRAMES 100000
#define MAX_REQUEST (64u << 20)
#define BATCH 256

typedef struct {
    char *bytes;
    size_t size;
} text;

/* A stream's frames, prepared one behind the other in memory, so that a burst is one range of bytes. Never
 * freed, as streams under way may still use them. */
typedef struct script {
    text *frames;
    int count;
} script;

typedef struct conn conn;
typedef struct {
    conn *first, *last;
} list;

struct conn {
    int fd;
    char *in; /* the request as far as it has come */
    size_t have, room, need;
    const char *out; /* what the socket did not take */
    size_t left;
    const text *answer;     /* to be sent when the delay is over */
    const script *script;   /* the stream under way */
    int next;               /* its frame to send */
    int is_closing, is_last_sent;
    int64_t due;
    list *in_list;
    conn *before, *after;
};

static struct {
    int frames, interval_ms, delay_ms, hold, burst, step;
} settings = {100, 0, 0, 0, 1, 0};
static const script *scripts[2]; /* of chats, without and with usage */
static const script *message_script, *response_script, *gemini_script;
static text whole_answer, straico_answer, whole_message, whole_response, whole_gemini;
static text models, fine, missing, length_required, stream_head;
static list delayed, paced, eager, stepping;
static int epoll_fd;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- lists: in the order of `due` */

static void leave(conn *c) {
    list *l = c->in_list;
    if (!l) return;
    *(c->before ? &c->before->after : &l->first) = c->after;
    *(c->after ? &c->after->before : &l->last) = c->before;
    c->before = c->after = NULL;
    c->in_list = NULL;
}

static void enter(list *l, conn *c, int64_t due) {
    conn *before = l->last;
    leave(c);
    c->due = due;
    while (before && before->due > due) before = before->before;
    c->before = before;
    c->after = before ? before->after : l->first;
    *(c->after ? &c->after->before : &l->last) = c;
    *(before ? &before->after : &l->first) = c;
    c->in_list = l;
}

/* ---- what is sent */

static text joined(const char *head, const char *body, const char *tail) {
    text t;
    t.size = strlen(head) + strlen(body) + strlen(tail);
    t.bytes = malloc(t.size + 1);
    strcpy(t.bytes, head);
    strcat(t.bytes, body);
    strcat(t.bytes, tail);
    return t;
}

static text response(const char *status, const char *body) {
    char head[256];
    snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
             status, strlen(body));
    return joined(head, body, "");
}

static text as_chunk(const char *body, const char *tail) {
    char head[32];
    snprintf(head, sizeof head, "%zx\r\n", strlen(body));
    return joined(head, body, tail);
}

static void make_contiguous(script *s) {
    size_t size = 0;
    for (int i = 0; i < s->count; i++) size += s->frames[i].size;
    char *to = malloc(size);
    for (int i = 0; i < s->count; i++) {
        memcpy(to, s->frames[i].bytes, s->frames[i].size);
        free(s->frames[i].bytes);
        s->frames[i].bytes = to;
        to += s->frames[i].size;
    }
}

static const script *make_script(int count, int usage) {
    script *s = malloc(sizeof *s);
    char frame[FRAME_ROOM];
    int sent = count + usage;
    s->count = sent + 1;
    s->frames = malloc((size_t)s->count * sizeof *s->frames);
    for (int i = 0; i < sent; i++) {
        write_frame(frame, i, count, usage);
        s->frames[i] = as_chunk(frame, "\r\n");
    }
    s->frames[sent] = as_chunk(FRAME_DONE, "\r\n0\r\n\r\n");
    make_contiguous(s);
    return s;
}

typedef enum { MESSAGES, RESPONSES, GEMINI } dialect;

static const script *make_unit_script(int count, dialect spoken) {
    script *s = malloc(sizeof *s);
    size_t room = 4096 + 2 * 8 * (size_t)count; /* a unit has all of the content twice at most */
    char *unit = malloc(room), *content = calloc(1, room), *end = content;
    for (int i = 0; i < count - 1; i++) end += sprintf(end, "w%06d ", i);
    s->count = count + CLOSING_UNITS;
    s->frames = malloc((size_t)s->count * sizeof *s->frames);
    for (int i = 0; i < s->count; i++) {
        if (spoken == GEMINI)
            write_gemini_unit(unit, room, i, count);
        else if (spoken == RESPONSES)
            write_response_unit(unit, room, i, count, content);
        else
            write_message_unit(unit, room, i, count);
        s->frames[i] = as_chunk(unit, i == s->count - 1 ? "\r\n0\r\n\r\n" : "\r\n");
    }
    make_contiguous(s);
    free(unit);
    free(content);
    return s;
}

#define ANSWER                                                                                              \
    "A gateway earns its place by what it takes away: one address instead of thirty, one key, one shape of " \
    "error. What it adds, in time and in memory, should be too little to find."

#define COMPLETION                                                                                          \
    "{\"id\":\"chatcmpl-bench7d41f0c3a9e6\",\"object\":\"chat.completion\",\"created\":1700000000,"         \
    "\"model\":\"bench-model\",\"system_fingerprint\":\"fp_bench00001\",\"choices\":[{\"index\":0,"         \
    "\"message\":{\"role\":\"assistant\",\"content\":\"" ANSWER "\",\"refusal\":null},"                      \
    "\"logprobs\":null,\"finish_reason\":\"stop\"}],"                                                       \
    "\"usage\":{\"prompt_tokens\":31,\"completion_tokens\":38,\"total_tokens\":69,"                         \
    "\"prompt_tokens_details\":{\"cached_tokens\":0}}"

static void prepare(void) {
    whole_answer = response("200 OK", COMPLETION "}");
    straico_answer = response("200 OK", COMPLETION ",\"price\":{\"input\":0.31,\"output\":0.76,\"total\":1.07},"
                                                   "\"words\":{\"input\":24,\"output\":33,\"total\":57}}");
    whole_message = response("200 OK", MESSAGE(ANSWER));
    whole_response = response("200 OK", RESPONSE(ANSWER));
    whole_gemini = response("200 OK", GEMINI_ANSWER(ANSWER));
    models = response("200 OK", "{\"object\":\"list\",\"data\":[{\"id\":\"bench-model\",\"object\":\"model\","
                                "\"created\":1700000000,\"owned_by\":\"bench\"}]}");
    fine = response("200 OK", "{\"status\":\"ok\"}");
    missing = response("404 Not Found", "{\"error\":{\"message\":\"no such route\",\"type\":\"not_found\"}}");
    length_required = response("411 Length Required", "{\"error\":{\"message\":\"no length\",\"type\":\"bad\"}}");
    stream_head = joined("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n",
                         "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n", "");
}

static void rebuild(void) {
    static int built;
    if (built == settings.frames) return;
    built = settings.frames;
    scripts[0] = make_script(built, 0);
    scripts[1] = make_script(built, 1);
    message_script = make_unit_script(built, MESSAGES);
    response_script = make_unit_script(built, RESPONSES);
    gemini_script = make_unit_script(built, GEMINI);
}

/* ---- connections */

static void watch(conn *c, int for_room) {
    struct epoll_event e = {.events = EPOLLIN | (for_room ? (uint32_t)EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

static void drop(conn *c) {
    leave(c);
    close(c->fd);
    free(c->in);
    free(c);
}

typedef enum { GONE, BLOCKED, SENT } outcome;

static outcome put(conn *c, const text *t) {
    ssize_t n = send(c->fd, t->bytes, t->size, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        drop(c);
        return GONE;
    }
    if (n < 0) n = 0;
    if ((size_t)n == t->size) return SENT;
    c->out = t->bytes + n;
    c->left = t->size - (size_t)n;
    watch(c, 1);
    return BLOCKED;
}

static outcome take_requests(conn *c);

/* The answer is out: on to what the client has sent meanwhile. */
static outcome finished(conn *c) {
    c->script = NULL;
    c->answer = NULL;
    c->is_last_sent = 0;
    if (!c->is_closing) return take_requests(c);
    drop(c);
    return GONE;
}

static void wait_turn(conn *c, int64_t from) {
    if (settings.hold && c->next > 0) return;
    if (settings.interval_ms)
        enter(&paced, c, from + settings.interval_ms * 1000000ll);
    else
        enter(settings.step && c->next > 0 ? &stepping : &eager, c, 0);
}

/* The next `count` frames of a stream as one range of bytes, or as many as are left. */
static text take_frames(conn *c, int count) {
    const text *first = &c->script->frames[c->next];
    text range = {first->bytes, 0};
    for (; count > 0 && c->next < c->script->count; count--) range.size += c->script->frames[c->next++].size;
    return range;
}

/* The burst whose turn it is. Paced, it is one frame; the usage frame and [DONE] go with the last one of
 * content, each in a send() of its own. */
static void send_burst(conn *c) {
    int64_t due = c->due;
    do {
        text range = take_frames(c, c->in_list == &paced ? 1 : settings.burst);
        c->is_last_sent = c->next == c->script->count;
        outcome o = put(c, &range);
        if (o == BLOCKED) leave(c);
        if (o != SENT) return;
    } while (c->in_list == &paced && !c->is_last_sent && c->next >= settings.frames);
    if (c->is_last_sent) {
        leave(c);
        finished(c);
    } else if (c->in_list == &paced || settings.hold || settings.step) {
        leave(c);
        wait_turn(c, due);
    }
}

static outcome begin_answer(conn *c) {
    const text *answer = c->answer;
    c->answer = NULL;
    if (!c->script) {
        c->is_last_sent = 1;
        outcome o = put(c, answer);
        return o == SENT ? finished(c) : o;
    }
    c->next = 0;
    outcome o = put(c, &stream_head);
    if (o == SENT) wait_turn(c, now_ns());
    return o;
}

/* ---- requests */

static int has_true(const char *body, size_t size, const char *name) {
    const char *end = body + size;
    size_t length = strlen(name);
    while ((body = memmem(body, (size_t)(end - body), name, length))) {
        body += length;
        const char *p = body;
        while (p < end && strchr(" \t\r\n", *p)) p++;
        if (p < end && *p == ':') p++;
        while (p < end && strchr(" \t\r\n", *p)) p++;
        if (end - p >= 4 && !memcmp(p, "true", 4)) return 1;
    }
    return 0;
}

static void set(const char *query, const char *name, int *value, int low, int high) {
    const char *p = strstr(query, name);
    if (!p) return;
    int v = atoi(p + strlen(name));
    *value = v < low ? low : v > high ? high : v;
}

static void control(const char *query) {
    set(query, "frames=", &settings.frames, 1, MAX_FRAMES);
    set(query, "interval_ms=", &settings.interval_ms, 0, 60000);
    set(query, "delay_ms=", &settings.delay_ms, 0, 60000);
    set(query, "hold=", &settings.hold, 0, 1);
    set(query, "burst=", &settings.burst, 1, MAX_FRAMES);
    set(query, "step=", &settings.step, 0, 1);
    rebuild();
}

/* The answer to a request whose first line is `line` (ends in NUL) and whose body is complete. */
static void route(conn *c, const char *line, const char *body, size_t size) {
    c->script = NULL;
    c->answer = &missing;
    if (!strncmp(line, "POST /control", 13)) {
        control(line);
        c->answer = &fine;
    } else if (!strncmp(line, "POST /step", 10)) {
        while (stepping.first) enter(&eager, stepping.first, 0);
        c->answer = &fine;
    } else if (!strncmp(line, "POST", 4) && strstr(line, "/chat/completions")) {
        c->answer = strstr(line, "/v2/") ? &straico_answer : &whole_answer;
        if (has_true(body, size, "\"stream\"")) c->script = scripts[has_true(body, size, "\"include_usage\"")];
    } else if (!strncmp(line, "POST", 4) && strstr(line, "/messages")) {
        c->answer = &whole_message;
        if (has_true(body, size, "\"stream\"")) c->script = message_script;
    } else if (!strncmp(line, "POST", 4) && strstr(line, "/responses")) {
        c->answer = &whole_response;
        if (has_true(body, size, "\"stream\"")) c->script = response_script;
    } else if (!strncmp(line, "POST", 4) && strstr(line, "enerateContent")) {
        c->answer = &whole_gemini;
        if (strstr(line, ":streamGenerateContent")) c->script = gemini_script;
    } else if (strstr(line, "/models")) {
        c->answer = &models;
    } else if (strstr(line, "/health")) {
        c->answer = &fine;
    }
}

/* Bytes of head and body, once the head is here; 0 before; a body without length is refused by the caller. */
static size_t request_size(conn *c) {
    char *end = memmem(c->in, c->have, "\r\n\r\n", 4);
    if (!end) return 0;
    *end = 0; /* a string for strcasestr; the bytes are not needed again */
    size_t head = (size_t)(end - c->in) + 4;
    const char *length = strcasestr(c->in, "\r\ncontent-length:");
    c->is_closing = strcasestr(c->in, "\r\nconnection: close") != NULL;
    if (strcasestr(c->in, "\r\ntransfer-encoding:")) c->is_closing = 2;
    return head + (length ? strtoul(length + 17, NULL, 10) : 0);
}

static outcome take_requests(conn *c) {
    if (!c->have || c->script || c->answer || c->left) return SENT; /* nothing to take, or not its turn */
    if (!c->need) c->need = request_size(c);
    if (!c->need || c->have < c->need) return SENT;
    size_t head = strlen(c->in) + 4; /* ends in the NUL that request_size put */
    char *line_end = memchr(c->in, '\r', head);
    if (line_end) *line_end = 0;
    route(c, c->in, c->in + head, c->need - head);
    if (c->is_closing == 2) {
        c->answer = &length_required;
        c->script = NULL;
    }
    c->have -= c->need;
    memmove(c->in, c->in + c->need, c->have);
    c->need = 0;
    if (settings.delay_ms && c->answer != &fine) {
        enter(&delayed, c, now_ns() + settings.delay_ms * 1000000ll);
        return SENT;
    }
    return begin_answer(c); /* comes back here for what follows */
}

static void readable(conn *c) {
    for (;;) {
        if (c->room - c->have < 16384) {
            c->room = c->need > c->room ? c->need + 16384 : c->room * 2 + 32768;
            c->in = realloc(c->in, c->room);
        }
        ssize_t n = recv(c->fd, c->in + c->have, c->room - c->have, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN) || c->have > MAX_REQUEST) {
            drop(c);
            return;
        }
        if (n < 0) break;
        c->have += (size_t)n;
        if (c->have < c->room) break; /* more may have come, and then epoll says so again */
    }
    take_requests(c);
}

static void writable(conn *c) {
    ssize_t n = send(c->fd, c->out, c->left, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        drop(c);
        return;
    }
    if (n < 0) return;
    c->out += n;
    c->left -= (size_t)n;
    if (c->left) return;
    watch(c, 0);
    if (c->is_last_sent)
        finished(c);
    else if (settings.interval_ms)
        wait_turn(c, c->due ? c->due : now_ns());
    else
        wait_turn(c, 0);
}

static void accept_all(int listener) {
    int one = 1;
    for (int i = 0; i < BATCH; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        conn *c = calloc(1, sizeof *c);
        c->fd = fd;
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

/* ---- the loop */

static void run_due(list *l, void (*act)(conn *)) {
    int64_t now = now_ns();
    conn *last = l->last; /* whoever enters meanwhile waits for the next round */
    for (conn *c = l->first; c && c->due <= now; c = l->first) {
        int is_last = c == last;
        act(c);
        if (is_last) return;
    }
}

static void end_delay(conn *c) {
    leave(c);
    begin_answer(c);
}

static void run_eager(void) {
    for (conn *c = eager.first, *after; c; c = after) {
        after = c->after;
        send_burst(c);
    }
}

/* How long nothing is due, in ns; -1: nothing will be. epoll_wait knows only milliseconds. */
static int64_t spare_ns(void) {
    int64_t due = INT64_MAX;
    if (eager.first) return 0;
    if (paced.first) due = paced.first->due;
    if (delayed.first && delayed.first->due < due) due = delayed.first->due;
    if (due == INT64_MAX) return -1;
    due -= now_ns();
    return due > 0 ? due : 0;
}

static int wait_for(struct epoll_event *events) {
    int64_t spare = spare_ns();
    if (spare > 0) {
        struct pollfd p = {.fd = epoll_fd, .events = POLLIN};
        struct timespec t = {spare / 1000000000, spare % 1000000000};
        ppoll(&p, 1, &t, NULL);
        spare = 0;
    }
    return epoll_wait(epoll_fd, events, BATCH, spare < 0 ? -1 : 0);
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 4096)) {
        perror("upstream: listen");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv) {
    struct rlimit files;
    struct epoll_event events[BATCH], e = {.events = EPOLLIN, .data.ptr = NULL};
    if (argc != 2) {
        fprintf(stderr, "usage: upstream PORT\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prepare();
    rebuild();
    int listener = listen_on(atoi(argv[1]));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int n = wait_for(events);
        for (int i = 0; i < n; i++) {
            conn *c = events[i].data.ptr;
            if (!c)
                accept_all(listener);
            else if (events[i].events & EPOLLOUT)
                writable(c);
            else
                readable(c);
        }
        run_due(&delayed, end_delay);
        run_due(&paced, send_burst);
        run_eager();
    }
}
