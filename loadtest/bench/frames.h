/* What the scripted upstream streams, written once: upstream.c sends it, streams.c compares with it. */
#ifndef BENCH_FRAMES_H
#define BENCH_FRAMES_H

#include <stdio.h>

#define FRAME_ROOM 512
#define FRAME_HEAD                                                                              \
    "data: {\"id\":\"chatcmpl-bench7d41f0c3a9e6\",\"object\":\"chat.completion.chunk\","        \
    "\"created\":1700000000,\"model\":\"bench-model\",\"system_fingerprint\":\"fp_bench00001\","
#define FRAME_DONE "data: [DONE]\n\n"

/* Frame `i` of a stream of `count`, about 260 bytes: numbered content, the last one the reason to stop.
 * With `usage` as OpenAI has it for include_usage: null in each, and frame `count` has the numbers. */
static inline size_t write_frame(char *to, int i, int count, int usage) {
    const char *tail = usage ? ",\"usage\":null}\n\n" : "}\n\n";
    int n;
    if (i == count)
        n = snprintf(to, FRAME_ROOM,
                     FRAME_HEAD "\"choices\":[],\"usage\":{\"prompt_tokens\":31,\"completion_tokens\":%d,"
                                "\"total_tokens\":%d}}\n\n", count, count + 31);
    else if (i == count - 1)
        n = snprintf(to, FRAME_ROOM,
                     FRAME_HEAD "\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,"
                                "\"finish_reason\":\"stop\"}]%s", tail);
    else
        n = snprintf(to, FRAME_ROOM,
                     FRAME_HEAD "\"choices\":[{\"index\":0,\"delta\":{%s\"content\":\"w%06d \"},"
                                "\"logprobs\":null,\"finish_reason\":null}]%s",
                     i ? "" : "\"role\":\"assistant\",", i, tail);
    return (size_t)n;
}

#endif
