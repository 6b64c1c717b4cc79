// Publishes one invite and prints its reply.
//
//	go mod tidy
//	INVITE_API_KEY=… go run . 111-000-0000 [MESSAGE_ID]
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const directReplyTo = "amq.rabbitmq.reply-to"

func main() {
	phone, messageID := os.Args[1], fmt.Sprintf("example-%d", time.Now().UnixNano())
	if len(os.Args) > 2 {
		messageID = os.Args[2]
	}
	connection := must(amqp.Dial(env("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")))
	channel := must(connection.Channel())
	// The consumer for replies comes before the request. RabbitMQ's direct reply-to needs no queue.
	replies := must(channel.Consume(directReplyTo, "", true, false, false, false, nil))
	returns := channel.NotifyReturn(make(chan amqp.Return, 1))
	check(channel.Confirm(false))

	group := env("INVITE_GROUP", "72")
	key := loginKey(group, env("INVITE_USER", "12345"), os.Getenv("INVITE_API_KEY"), 10*time.Minute)
	body := must(json.Marshal(map[string]any{
		"authorization": "Bearer GKEY " + key,
		"groupid":       group, // a number, or a string of digits
		"sessiontype":   1,
		"smsPhone":      phone,
		"sessionParams": map[string]string{"camera": "back", "resolution": "352x288"},
	}))
	queue, mandatory, immediate := env("QUEUE_PREFIX", "session-invite")+".requests", true, false
	confirm := must(channel.PublishWithDeferredConfirm("", queue, mandatory, immediate, amqp.Publishing{
		MessageId:     messageID, // the idempotency key: a repeat gets the same session and sends no second text
		CorrelationId: messageID,
		ReplyTo:       directReplyTo,
		Timestamp:     time.Now(), // an invite older than 10 minutes is not texted
		ContentType:   "application/json",
		DeliveryMode:  amqp.Persistent,
		Body:          body,
	}))
	if !confirm.Wait() {
		log.Fatal("the broker did not store the invite; publish again with the same message id")
	}
	select {
	case <-returns:
		log.Fatalf("there is no queue %s; is a worker running?", queue)
	case reply := <-replies: // its CorrelationId is that of its request; here there is only one
		fmt.Println(string(reply.Body))
		if reply.Type != "invite.sent" {
			os.Exit(1)
		}
	case <-time.After(30 * time.Second):
		log.Fatalf("no reply in 30 s; publish again with the message id %s to get the outcome", messageID)
	}
}

func env(name, fallback string) string {
	if value, ok := os.LookupEnv(name); ok {
		return value
	}
	return fallback
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
