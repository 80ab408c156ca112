/* Plays one user of the chat through libpomelo2: gate, connector, everyone, whisper, errors.
 *
 *   libpomelo2 GATE_PORT USER ROOM [TO]
 *
 * With TO it whispers to that user and then to one who is not there. It keeps the dictionary and
 * the schemas in ./pomelo-PORT.dat, as an application would: the second run is not sent them. */
#include <pomelo.h>
#include <pomelo_trans.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char host[64];
static int port;
static volatile int answered;

static int keep(pc_local_storage_op_t op, char* data, size_t* length, void* name) {
    FILE* file = fopen(name, op == PC_LOCAL_STORAGE_OP_WRITE ? "w" : "r");
    if (!file) {
        *length = 0;
        return -1;
    }
    if (op == PC_LOCAL_STORAGE_OP_WRITE) {
        fwrite(data, 1, *length, file);
    } else {
        fseek(file, 0, SEEK_END);
        *length = (size_t)ftell(file);
        rewind(file);
        if (data && fread(data, 1, *length, file) != *length) *length = 0;
    }
    fclose(file);
    return 0;
}

static void heard(pc_client_t* client, int event, void* data, const char* one, const char* two) {
    (void)client; (void)data;
    printf("event %s %s %s\n", pc_client_ev_str(event), one ? one : "", two ? two : "");
    fflush(stdout);
}

static void answer(const pc_request_t* request, int code, const char* body) {
    printf("answer %s %s %s\n", pc_request_route(request), pc_client_rc_str(code), body ? body : "");
    fflush(stdout);
    const char* found = body ? strstr(body, "\"host\":\"") : NULL;
    if (found) {
        sscanf(found, "\"host\":\"%63[^\"]\"", host);
        sscanf(strstr(body, "\"port\":"), "\"port\":%d", &port);
    }
    answered++;
}

static void ask(pc_client_t* client, const char* route, const char* body) {
    int before = answered;
    pc_request_with_timeout(client, route, body, NULL, 10, answer);
    for (int tenths = 0; answered == before && tenths < 120; tenths++) usleep(100000);
}

static pc_client_t* open_client(const char* at, int number, char* file) {
    pc_client_config_t config = PC_CLIENT_CONFIG_DEFAULT;
    config.local_storage_cb = keep;
    config.ls_ex_data = file;
    pc_client_t* client = malloc(pc_client_size());
    pc_client_init(client, NULL, &config);
    pc_client_add_ev_handler(client, heard, NULL, NULL);
    pc_client_connect(client, at, number, NULL);
    for (int tenths = 0; pc_client_state(client) != PC_ST_CONNECTED && tenths < 50; tenths++) usleep(100000);
    return client;
}

static void shut(pc_client_t* client) {
    pc_client_disconnect(client);
    usleep(300000);
    pc_client_cleanup(client);
    free(client);
}

int main(int count, char** words) {
    char body[512], file[64];
    if (count < 4) return 64;
    pc_lib_init(NULL, NULL, NULL, NULL);
    snprintf(file, sizeof file, "pomelo-%s.dat", words[1]);
    pc_client_t* gate = open_client("127.0.0.1", atoi(words[1]), file);
    snprintf(body, sizeof body, "{\"uid\":\"%s\"}", words[2]);
    ask(gate, "gate.gateHandler.queryEntry", body);
    shut(gate);
    char kept[64];
    snprintf(kept, sizeof kept, "pomelo-connector.dat");
    pc_client_t* client = open_client(host, port, kept);
    snprintf(body, sizeof body, "{\"username\":\"%s\",\"rid\":\"%s\"}", words[2], words[3]);
    ask(client, "connector.entryHandler.enter", body);
    ask(client, "chat.chatHandler.send", "{\"content\":\"hello everyone 你好 😀\",\"target\":\"*\"}");
    if (count > 4) {
        snprintf(body, sizeof body, "{\"content\":\"psst\",\"target\":\"%s\"}", words[4]);
        ask(client, "chat.chatHandler.send", body);
        ask(client, "chat.chatHandler.send", "{\"content\":\"psst\",\"target\":\"nobody\"}");
    }
    sleep(count > 4 ? 4 : 12);
    shut(client);
    pc_lib_cleanup();
    return 0;
}
