// Plays one user of the chat through the Android client's ready jar, which speaks Socket.IO 0.9.
//
//   java -cp pomelo-android-client.jar:. Android GATE_PORT USER ROOM [TO]
import com.netease.pomelo.*;
import java.util.concurrent.*;
import org.json.JSONObject;

class Android {
    static JSONObject ask(PomeloClient client, String route, JSONObject body) throws Exception {
        BlockingQueue<JSONObject> answers = new ArrayBlockingQueue<>(1);
        client.request(route, body, new DataCallBack() {
            public void responseData(JSONObject answer) { answers.add(answer); }
        });
        JSONObject answer = answers.poll(10, TimeUnit.SECONDS);
        System.out.println("answer " + route + " " + answer);
        return answer;
    }

    static void say(PomeloClient client, String text, String to) throws Exception {
        ask(client, "chat.chatHandler.send", new JSONObject().put("content", text).put("target", to));
    }

    public static void main(String[] words) throws Exception {
        PomeloClient gate = new PomeloClient("127.0.0.1", Integer.parseInt(words[0]));
        gate.init();
        JSONObject entry = ask(gate, "gate.gateHandler.queryEntry", new JSONObject().put("uid", words[1]));
        if (entry == null) System.exit(1);
        gate.disconnect();
        PomeloClient client = new PomeloClient(entry.getString("host"), entry.getInt("port"));
        client.init();
        for (String route : new String[] {"onAdd", "onLeave", "onChat", "onKick"}) {
            client.on(route, new DataListener() {
                public void receiveData(DataEvent event) { System.out.println("push " + event.getMessage()); }
            });
        }
        ask(client, "connector.entryHandler.enter",
            new JSONObject().put("username", words[1]).put("rid", words[2]));
        say(client, "hello everyone 你好 😀", "*");
        if (words.length > 3) {
            say(client, "psst", words[3]);
            say(client, "psst", "nobody");
        }
        Thread.sleep(words.length > 3 ? 3000 : 12000);
        client.disconnect();
        System.exit(0);
    }
}
