// Plays one user of the chat through go-pomelo-client, over TCP.
//
//	goclient GATE_PORT USER ROOM [TO]
//
// It asks the gate by HTTP: a gate tells of no heartbeats, as the original's, and the library panics.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	client "github.com/revzim/go-pomelo-client"
)

func open(address string) *client.Connector {
	it, ready := client.NewConnector(), make(chan bool)
	if err := it.InitReqHandshake("0.6.0", "golang-tcp", nil, map[string]interface{}{}); err != nil {
		panic(err)
	}
	it.Connected(func() { ready <- true })
	go func() { fmt.Println("ended", it.Run(address, false, 50)) }()
	<-ready
	return it
}

func ask(it *client.Connector, route string, body map[string]string) []byte {
	answers := make(chan []byte, 1)
	text, _ := json.Marshal(body)
	it.Request(route, text, func(answer []byte) { answers <- answer })
	answer := <-answers
	fmt.Printf("answer %s %s\n", route, answer)
	return answer
}

func main() {
	words := os.Args
	time.AfterFunc(30*time.Second, func() { os.Exit(1) })
	var entry struct {
		Host string
		Port int
	}
	asked := fmt.Sprintf("http://127.0.0.1:%s/entry?uid=%s&rid=%s", words[1], url.QueryEscape(words[2]), words[3])
	response, err := http.Get(asked)
	if err != nil {
		panic(err)
	}
	json.NewDecoder(response.Body).Decode(&entry)
	it := open(fmt.Sprintf("%s:%d", entry.Host, entry.Port))
	for _, route := range []string{"onAdd", "onLeave", "onChat"} {
		route := route
		it.On(route, func(push []byte) { fmt.Printf("push %s %s\n", route, push) })
	}
	say := func(text, to string) {
		ask(it, "chat.chatHandler.send", map[string]string{"content": text, "target": to})
	}
	ask(it, "connector.entryHandler.enter", map[string]string{"username": words[2], "rid": words[3]})
	say("hello everyone 你好 😀", "*")
	if len(words) > 4 {
		say("psst", words[4])
		say("psst", "nobody")
		time.Sleep(3 * time.Second)
		return
	}
	time.Sleep(12 * time.Second)
}
