// Plays one user of the chat through the Unity client's ready library.
//
//   mono dotnet.exe GATE_PORT USER ROOM [TO]
using System;
using System.Threading;
using Pomelo.DotNetClient;
using SimpleJson;

class Chat {
    static PomeloClient Open(string host, int port) {
        var client = new PomeloClient();
        var ready = new ManualResetEvent(false);
        client.NetWorkStateChangedEvent += state => Console.WriteLine("state " + state);
        client.initClient(host, port, () => client.connect(new JsonObject(), data => {
            Console.WriteLine("handshake " + data);
            ready.Set();
        }));
        if (!ready.WaitOne(10000)) throw new Exception("no handshake");
        return client;
    }

    static JsonObject Ask(PomeloClient client, string route, JsonObject body) {
        JsonObject answer = null;
        var done = new ManualResetEvent(false);
        client.request(route, body, data => { answer = data; done.Set(); });
        if (!done.WaitOne(10000)) throw new Exception("no answer to " + route);
        Console.WriteLine("answer " + route + " " + answer);
        return answer;
    }

    static void Say(PomeloClient client, string text, string to) {
        Ask(client, "chat.chatHandler.send", new JsonObject { { "content", text }, { "target", to } });
    }

    static void Main(string[] words) {
        var gate = Open("127.0.0.1", int.Parse(words[0]));
        var entry = Ask(gate, "gate.gateHandler.queryEntry", new JsonObject { { "uid", words[1] } });
        gate.disconnect();
        var client = Open((string)entry["host"], Convert.ToInt32(entry["port"]));
        foreach (var route in new[] { "onAdd", "onLeave", "onChat" }) {
            client.on(route, data => Console.WriteLine("push " + route + " " + data));
        }
        Ask(client, "connector.entryHandler.enter",
            new JsonObject { { "username", words[1] }, { "rid", words[2] } });
        Say(client, "hello everyone 你好 😀", "*");
        if (words.Length > 3) {
            Say(client, "psst", words[3]);
            Say(client, "psst", "nobody");
        }
        Thread.Sleep(words.Length > 3 ? 3000 : 14000);
        client.disconnect();
        Environment.Exit(0);
    }
}
