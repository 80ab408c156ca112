/* Plays one user of the chat through libpomelo, the C client before libpomelo2.
 *
 *   libpomelo GATE_PORT USER ROOM [TO]
 *
 * With TO it whispers to that user and then to one who is not there. */
#include <arpa/inet.h>
#include <pomelo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char host[64];
static int port;
static volatile int answered;

static void heard(pc_client_t* client, const char* event, void* body) {
    (void)client;
    char* text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    printf("push %s %s\n", event, text ? text : "");
    fflush(stdout);
    free(text);
}

static void closed(pc_client_t* client, const char* event, void* data) {
    (void)client; (void)data;
    printf("event %s\n", event);
    fflush(stdout);
}

static void answer(pc_request_t* request, int status, json_t* body) {
    char* text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    printf("answer %s %d %s\n", request->route, status, text ? text : "");
    fflush(stdout);
    json_t* found = body ? json_object_get(body, "host") : NULL;
    if (found) {
        snprintf(host, sizeof host, "%s", json_string_value(found));
        port = (int)json_integer_value(json_object_get(body, "port"));
    }
    free(text);
    json_decref(request->msg);
    pc_request_destroy(request);
    answered++;
}

static void ask(pc_client_t* client, const char* route, json_t* body) {
    int before = answered;
    pc_request(client, pc_request_new(), route, body, answer);
    for (int tenths = 0; answered == before && tenths < 100; tenths++) usleep(100000);
}

static pc_client_t* open_client(const char* at, int number) {
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)number) };
    address.sin_addr.s_addr = inet_addr(at);
    pc_client_t* client = pc_client_new();
    pc_add_listener(client, PC_EVENT_DISCONNECT, closed);
    pc_add_listener(client, PC_EVENT_KICK, closed);
    pc_add_listener(client, "onAdd", heard);
    pc_add_listener(client, "onLeave", heard);
    pc_add_listener(client, "onChat", heard);
    if (pc_client_connect(client, &address)) {
        puts("no connection");
        exit(1);
    }
    return client;
}

static void say(pc_client_t* client, const char* text, const char* to) {
    ask(client, "chat.chatHandler.send", json_pack("{s:s,s:s}", "content", text, "target", to));
}

int main(int count, char** words) {
    if (count < 4) return 64;
    pc_client_t* gate = open_client("127.0.0.1", atoi(words[1]));
    ask(gate, "gate.gateHandler.queryEntry", json_pack("{s:s}", "uid", words[2]));
    pc_client_destroy(gate);
    pc_client_t* client = open_client(host, port);
    ask(client, "connector.entryHandler.enter", json_pack("{s:s,s:s}", "username", words[2], "rid", words[3]));
    say(client, "hello everyone 你好 😀", "*");
    if (count > 4) {
        say(client, "psst", words[4]);
        say(client, "psst", "nobody");
    }
    sleep(count > 4 ? 4 : 12);
    pc_client_destroy(client);
    return 0;
}
