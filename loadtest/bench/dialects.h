/* What upstream.c answers in Anthropic's Messages, OpenAI's Responses and Google's Gemini, whole and streamed.
 *
 * The streams have the units of the chat stream in frames.h, so that all dialects are scripted alike: unit 0
 * opens the answer and has the first content, each unit up to `count - 2` has one piece of numbered content,
 * `count - 1` ends the content, and two units more close the answer. A unit may hold several frames. */
#ifndef BENCH_DIALECTS_H
#define BENCH_DIALECTS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENT(name) "event: " name "\ndata: {\"type\":\"" name "\""
#define CLOSING_UNITS 2

#define MESSAGE_HEAD                                                                                        \
    "\"id\":\"msg_01Bench7d41f0c3a9e6aT\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"bench-model\","

#define MESSAGE(text)                                                                                       \
    "{" MESSAGE_HEAD "\"content\":[{\"type\":\"text\",\"text\":\"" text "\"}],\"stop_reason\":\"end_turn\"," \
    "\"stop_sequence\":null,\"usage\":{\"input_tokens\":31,\"cache_creation_input_tokens\":0,"               \
    "\"cache_read_input_tokens\":0,\"output_tokens\":38,\"service_tier\":\"standard\"}}"

/* The unit `i` of a Messages stream into `to`. */
static inline void write_message_unit(char *to, size_t room, int i, int count) {
    const char *delta =
        EVENT("content_block_delta") ",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"w%06d \"}}\n\n";
    size_t n = 0;
    if (i == 0)
        n = (size_t)snprintf(
            to, room,
            EVENT("message_start") ",\"message\":{" MESSAGE_HEAD "\"content\":[],\"stop_reason\":null,"
            "\"stop_sequence\":null,\"usage\":{\"input_tokens\":31,\"cache_creation_input_tokens\":0,"
            "\"cache_read_input_tokens\":0,\"output_tokens\":1}}}\n\n"
            EVENT("content_block_start") ",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n");
    if (i < count - 1)
        snprintf(to + n, room - n, delta, i);
    else if (i == count - 1)
        snprintf(to, room, EVENT("content_block_stop") ",\"index\":0}\n\n");
    else if (i == count)
        snprintf(to, room,
                 EVENT("message_delta") ",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},"
                 "\"usage\":{\"output_tokens\":%d}}\n\n", count);
    else
        snprintf(to, room, EVENT("message_stop") "}\n\n");
}

#define RESPONSE_HEAD                                                                                       \
    "{\"id\":\"resp_bench7d41f0c3a9e6\",\"object\":\"response\",\"created_at\":1700000000,"                 \
    "\"model\":\"bench-model\",\"error\":null,\"incomplete_details\":null,"
#define RESPONSE_ITEM "{\"id\":\"msg_bench7d41f0c3a9e6\",\"type\":\"message\",\"role\":\"assistant\","
#define RESPONSE_PART "{\"type\":\"output_text\",\"annotations\":[],\"text\":\"%s\"}"
#define RESPONSE_USAGE                                                                                      \
    "{\"input_tokens\":31,\"input_tokens_details\":{\"cached_tokens\":0},\"output_tokens\":38,"             \
    "\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":69}"
#define RESPONSE_AT "\"item_id\":\"msg_bench7d41f0c3a9e6\",\"output_index\":0,\"content_index\":0,"

#define RESPONSE(text)                                                                                      \
    RESPONSE_HEAD "\"status\":\"completed\",\"output\":[" RESPONSE_ITEM "\"status\":\"completed\","         \
    "\"content\":[{\"type\":\"output_text\",\"annotations\":[],\"text\":\"" text "\"}]}],"                  \
    "\"usage\":" RESPONSE_USAGE "}"

/* The unit `i` of a Responses stream into `to`; `text` is all of its content. */
static inline void write_response_unit(char *to, size_t room, int i, int count, const char *text) {
    const char *in_progress = RESPONSE_HEAD "\"status\":\"in_progress\",\"output\":[],\"usage\":null}}\n\n";
    const char *delta = EVENT("response.output_text.delta") "," RESPONSE_AT
                        "\"logprobs\":[],\"delta\":\"w%06d \",\"sequence_number\":%d}\n\n";
    size_t n = 0;
    if (i == 0)
        n = (size_t)snprintf(
            to, room,
            EVENT("response.created") ",\"sequence_number\":0,\"response\":%s"
            EVENT("response.in_progress") ",\"sequence_number\":1,\"response\":%s"
            EVENT("response.output_item.added") ",\"sequence_number\":2,\"output_index\":0,"
            "\"item\":" RESPONSE_ITEM "\"status\":\"in_progress\",\"content\":[]}}\n\n"
            EVENT("response.content_part.added") "," RESPONSE_AT "\"sequence_number\":3,\"part\":" RESPONSE_PART
            "}\n\n", in_progress, in_progress, "");
    if (i < count - 1)
        snprintf(to + n, room - n, delta, i, i + 4);
    else if (i == count - 1)
        snprintf(to, room, EVENT("response.output_text.done") "," RESPONSE_AT
                 "\"sequence_number\":%d,\"text\":\"%s\",\"logprobs\":[]}\n\n", i + 4, text);
    else if (i == count)
        snprintf(to, room,
                 EVENT("response.content_part.done") "," RESPONSE_AT "\"sequence_number\":%d,"
                 "\"part\":" RESPONSE_PART "}\n\n"
                 EVENT("response.output_item.done") ",\"sequence_number\":%d,\"output_index\":0,"
                 "\"item\":" RESPONSE_ITEM "\"status\":\"completed\",\"content\":[" RESPONSE_PART "]}}\n\n",
                 i + 4, text, i + 5, text);
    else
        snprintf(to, room,
                 EVENT("response.completed") ",\"sequence_number\":%d,\"response\":" RESPONSE_HEAD
                 "\"status\":\"completed\",\"output\":[" RESPONSE_ITEM "\"status\":\"completed\","
                 "\"content\":[" RESPONSE_PART "]}],\"usage\":" RESPONSE_USAGE "}}\n\n", i + 5, text);
}

#define GEMINI_CANDIDATE "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\""
#define GEMINI_USAGE                                                                                        \
    "\"usageMetadata\":{\"promptTokenCount\":31,\"candidatesTokenCount\":38,\"totalTokenCount\":69},"         \
    "\"modelVersion\":\"bench-model\",\"responseId\":\"bench7d41f0c3a9e6\"}"
#define GEMINI_DONE "\"}],\"role\":\"model\"},\"finishReason\":\"STOP\",\"index\":0}]," GEMINI_USAGE

#define GEMINI_ANSWER(text) GEMINI_CANDIDATE text GEMINI_DONE

/* The unit `i` of a Gemini stream into `to`: one frame each, the last one with the reason to stop. */
static inline void write_gemini_unit(char *to, size_t room, int i, int count) {
    char piece[16] = "";
    if (i < count - 1) snprintf(piece, sizeof piece, "w%06d ", i % 1000000);
    snprintf(to, room, "data: " GEMINI_CANDIDATE "%s%s\r\n\r\n", piece,
             i > count ? GEMINI_DONE : "\"}],\"role\":\"model\"},\"index\":0}]," GEMINI_USAGE);
}

#endif
