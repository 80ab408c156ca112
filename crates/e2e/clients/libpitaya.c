/* Plays one user of the chat through libpitaya: gate, connector, everyone, whisper, errors.
 *
 *   libpitaya GATE_PORT USER ROOM [TO]
 *
 * With TO it whispers to that user, then to one who is not there, and at last calls a handler's
 * constructor, for which it is kicked. */
#include <pitaya.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char host[64];
static int port;
static volatile int answered;

static void heard(pc_client_t* client, int event, void* data, const char* one, const char* two) {
    (void)client; (void)data;
    printf("event %s %s %s\n", pc_client_ev_str(event), one ? one : "", two ? two : "");
    fflush(stdout);
}

static void pushed(pc_client_t* client, const char* route, const pc_buf_t* body) {
    (void)client;
    printf("push %s %.*s\n", route, (int)body->len, body->base);
    fflush(stdout);
}

static void answer(const pc_request_t* request, const pc_buf_t* body) {
    char text[1024];
    snprintf(text, sizeof text, "%.*s", (int)body->len, body->base);
    printf("answer %s %s\n", pc_request_route(request), text);
    fflush(stdout);
    const char* found = strstr(text, "\"host\":\"");
    if (found) {
        sscanf(found, "\"host\":\"%63[^\"]\"", host);
        sscanf(strstr(text, "\"port\":"), "\"port\":%d", &port);
    }
    answered++;
}

static void refused(const pc_request_t* request, const pc_error_t* error) {
    printf("refused %s %s %.*s\n", pc_request_route(request), pc_client_rc_str(error->code),
           (int)error->payload.len, error->payload.base ? (char*)error->payload.base : "");
    fflush(stdout);
    answered++;
}

static void ask(pc_client_t* client, const char* route, const char* body) {
    int before = answered;
    int code = pc_string_request_with_timeout(client, route, body, NULL, 10, answer, refused);
    if (code != PC_RC_OK) printf("unsent %s %s\n", route, pc_client_rc_str(code));
    for (int tenths = 0; code == PC_RC_OK && answered == before && tenths < 120; tenths++) usleep(100000);
}

static pc_client_t* open_client(const char* at, int number) {
    pc_client_config_t config = PC_CLIENT_CONFIG_DEFAULT;
    config.enable_reconn = 0;
    pc_client_t* client = pc_client_init(NULL, &config).client;
    pc_client_set_push_handler(client, pushed);
    pc_client_add_ev_handler(client, heard, NULL, NULL);
    pc_client_connect(client, at, number, NULL);
    for (int tenths = 0; pc_client_state(client) != PC_ST_CONNECTED && tenths < 50; tenths++) usleep(100000);
    return client;
}

static void shut(pc_client_t* client) {
    pc_client_disconnect(client);
    usleep(300000);
    pc_client_cleanup(client);
}

int main(int count, char** words) {
    char body[512];
    if (count < 4) return 64;
    pc_lib_client_info_t info = { "linux", "1", "1.0" };
    pc_lib_set_default_log_level(PC_LOG_WARN);
    pc_lib_init(NULL, NULL, NULL, NULL, info);
    pc_client_t* gate = open_client("127.0.0.1", atoi(words[1]));
    snprintf(body, sizeof body, "{\"uid\":\"%s\"}", words[2]);
    ask(gate, "gate.gateHandler.queryEntry", body);
    shut(gate);
    pc_client_t* client = open_client(host, port);
    snprintf(body, sizeof body, "{\"username\":\"%s\",\"rid\":\"%s\"}", words[2], words[3]);
    ask(client, "connector.entryHandler.enter", body);
    ask(client, "chat.chatHandler.send", "{\"content\":\"hello everyone 你好 😀\",\"target\":\"*\"}");
    if (count > 4) {
        snprintf(body, sizeof body, "{\"content\":\"psst\",\"target\":\"%s\"}", words[4]);
        ask(client, "chat.chatHandler.send", body);
        ask(client, "chat.chatHandler.send", "{\"content\":\"psst\",\"target\":\"nobody\"}");
        sleep(2);
        pc_string_notify_with_timeout(client, "connector.entryHandler.constructor", "{}", NULL, 10, NULL);
    }
    sleep(count > 4 ? 2 : 12);
    shut(client);
    pc_lib_cleanup();
    return 0;
}
