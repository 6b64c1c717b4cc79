"""Runs the recipes of docs/SCALING.md as they are written there, and checks what the page promises. `./dev shards` starts
it, with servers of its own, the provider's sandbox, and the recipes' commands on the PATH.
"""

import base64
import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

PAGE = "docs/SCALING.md"
INVITES = 60
BOTH = 25
DEADLINE = 60


def blocks(heading):
    """The sh blocks below a heading of the page."""
    with open(PAGE, encoding="utf-8") as page:
        section = page.read().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines, found, block = section.splitlines(), [], None
    for line in lines:
        text = line.strip()
        if block is None and text == "```sh":
            block = []
        elif block is not None and text == "```":
            found.append("\n".join(block))
            block = None
        elif block is not None:
            block.append(line)
    return found


def definitions():
    """The page's JSON block."""
    with open(PAGE, encoding="utf-8") as page:
        return json.loads(page.read().split("```json\n")[1].split("```")[0])


class Shell:
    """One bash that runs all blocks, so that their variables and background jobs last."""

    def __init__(self):
        self.bash = subprocess.Popen(
            ["bash", "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
        )
        self.run("set -Eeuo pipefail\ntrap 'kill $(jobs -p) && wait' EXIT")

    def run(self, script):
        print("  $ " + "\n    ".join(script.splitlines()), flush=True)
        # A command of the block must not read the next one.
        self.bash.stdin.write("{\n" + script + "\n} </dev/null\necho 'block done'\n")
        self.bash.stdin.flush()
        for line in self.bash.stdout:
            if line == "block done\n":
                return
            print("    " + line, end="", flush=True)
        sys.exit(f"a block of {PAGE} failed")

    def end(self):
        self.bash.stdin.close()
        self.bash.wait(timeout=40)


def broker(method, path, body=None):
    """A request to the broker's management API."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{os.environ['MANAGEMENT_PORT']}/api/{path}",
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={
            "Authorization": "Basic " + base64.b64encode(b"guest:guest").decode(),
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def publish(exchange, key, message_id, body):
    """Publishes a request. Whether it was routed."""
    message = {
        "properties": {"message_id": message_id, "content_type": "application/json", "delivery_mode": 2},
        "routing_key": key,
        "payload": json.dumps(body),
        "payload_encoding": "string",
    }
    exchange = urllib.parse.quote(exchange, safe="")
    return broker("POST", f"exchanges/%2f/{exchange}/publish", message)["routed"]


def take(queue):
    """All messages of a queue, as pairs of correlation id and body."""
    wanted = {"count": 1000, "ackmode": "ack_requeue_false", "encoding": "auto"}
    messages = broker("POST", f"queues/%2f/{queue}/get", wanted)
    return [(it["properties"]["correlation_id"], it["payload"]) for it in messages]


def until(what, condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"not within {DEADLINE} s: {what}")
        time.sleep(0.1)


def queue_exists(queue):
    return any(it["name"] == queue for it in broker("GET", "queues?columns=name"))


def sql(statement, url=None):
    words = ["psql", "-XAtc", statement, url or os.environ["DATABASE_URL"]]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def texts():
    url = os.environ["SMS_BASE_URL"] + "/sandbox/messages"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def token(group, url):
    words = ["session-invite", "tokens", "issue", "gkey", "--group", str(group), "--user", "12345"]
    issued = subprocess.run(
        words, check=True, capture_output=True, text=True, env={**os.environ, "DATABASE_URL": url}
    )
    return issued.stdout.strip()


class Requests:
    """Requests of a group, each to a number of its own."""

    number = 2_000_000

    def __init__(self, group, url):
        self.group, self.gkey = group, token(group, url)

    def next(self):
        Requests.number += 1
        return {
            "authorization": f"Bearer GKEY {self.gkey}",
            "groupid": self.group,
            "sessiontype": 1,
            "smsPhone": f"+1415{Requests.number}",
        }


def check(what, holds):
    if not holds:
        sys.exit(f"WRONG: {what}")
    print(f"  holds: {what}", flush=True)


def take_replies(prefixes, count):
    """Replies by correlation id, once each shard's queue of replies has given them up."""
    replies, by_prefix = [], dict.fromkeys(prefixes, 0)

    def all_came():
        for prefix in prefixes:
            came = take(f"{prefix}.replies")
            by_prefix[prefix] += len(came)
            replies.extend(came)
        return len(replies) >= count

    until(f"{count} replies", all_came)
    by_id = {}
    for correlation, body in replies:
        by_id.setdefault(correlation, []).append(body)
    return by_id, by_prefix


def is_sent(body):
    return json.loads(body)["status"] == "sent"


def check_shards(name, prefixes, requests):
    before = len(texts())
    for number in range(INVITES):
        routed = publish("session-invite", "any", f"{name}-{number}", requests.next())
        assert routed, "the exchange routes each invite"
    replies, by_prefix = take_replies(prefixes, INVITES)
    check(f"{INVITES} invites through the exchange: each has one reply, sent",
          len(replies) == INVITES and all(len(it) == 1 and is_sent(it[0]) for it in replies.values()))
    check(f"every shard has some of them: {by_prefix}", all(by_prefix.values()))
    check("each has one text", len(texts()) - before == INVITES)


def check_both_at_once(name, prefixes, requests):
    """The same message on every shard at once, as while bindings change."""
    before = len(texts())
    with ThreadPoolExecutor(max_workers=len(prefixes)) as pool:
        for number in range(BOTH):
            body, message_id = requests.next(), f"{name}-{number}"
            for future in [
                pool.submit(publish, "amq.default", f"{prefix}.requests", message_id, body) for prefix in prefixes
            ]:
                assert future.result(), "the queue exists"
    replies, _ = take_replies(prefixes, BOTH * len(prefixes))
    check(f"{BOTH} message ids on {len(prefixes)} shards at once: one text each", len(texts()) - before == BOTH)
    check("the replies of all shards are equal",
          all(len(it) == len(prefixes) and len(set(it)) == 1 and is_sent(it[0]) for it in replies.values()))
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    check("no statement of two workers deadlocks", sql(deadlocks) == "0")
    check("one row each", sql(f"select count(*) from sessions where message_id like '{name}-%'") == str(BOTH))


def shards(shell):
    workers, plugins, exchange, bindings = blocks("When one queue is full")
    subprocess.run(["session-invite", "migrate"], check=True)
    subprocess.run(["session-invite", "groups", "add", "72", "--per-number", "0"], check=True, capture_output=True)
    requests = Requests(72, os.environ["DATABASE_URL"])
    shell.run(workers)
    shell.run(plugins)
    until("the management API answers", management_answers)
    prefixes = ["session-invite-0", "session-invite-1"]
    until("the queues exist", lambda: all(queue_exists(f"{it}.requests") for it in prefixes))
    shell.run(exchange)
    shell.run(bindings)
    check_shards("two", prefixes, requests)
    check_both_at_once("both", prefixes, requests)
    with open(os.path.join(os.environ["RECIPE_DIR"], "definitions.json"), "w", encoding="utf-8") as file:
        json.dump(definitions(), file)
    before = broker("GET", "bindings/%2f")
    shell.run(f"rabbitmqctl --quiet import_definitions <{file.name}")
    check("the definitions are what rabbitmqadmin declared", broker("GET", "bindings/%2f") == before)

    shell.run('shards="2 3"\n' + workers.split("\n", 1)[1])
    prefixes += ["session-invite-2", "session-invite-3"]
    until("the queues exist", lambda: all(queue_exists(f"{it}.requests") for it in prefixes))
    shell.run(bindings)
    check_shards("four", prefixes, requests)
    check_both_at_once("all", prefixes, requests)


def management_answers():
    try:
        return broker("GET", "overview") is not None
    except OSError:
        return False


def groups(shell):
    prepare, workers, bindings = blocks("When one database is full")
    shell.run(prepare)
    shell.run(workers)
    prefixes = ["session-invite-a", "session-invite-b"]
    until("the queues exist", lambda: all(queue_exists(f"{it}.requests") for it in prefixes))
    shell.run(bindings)
    urls = [os.environ["DATABASE_A"], os.environ["DATABASE_B"]]
    ours, theirs = Requests(72, urls[0]), Requests(73, urls[1])
    for number in range(10):
        for requests in [ours, theirs]:
            key = str(requests.group)
            assert publish("session-invite-groups", key, f"group-{key}-{number}", requests.next()), "it is routed"
    for prefix in prefixes:
        replies, _ = take_replies([prefix], 10)
        check(f"{prefix}: 10 invites of its group, each with one reply, sent",
              len(replies) == 10 and all(len(it) == 1 and is_sent(it[0]) for it in replies.values()))
    for url, group in zip(urls, [72, 73]):
        rows = sql("select string_agg(distinct group_id::text, ',') from sessions", url)
        check(f"group {group} is in its own database alone", rows == str(group))
    check("an invite of a group without a binding is not routed",
          not publish("session-invite-groups", "74", "unbound", ours.next()))
    before = len(texts())
    assert publish("amq.default", "session-invite-a.requests", "wrong", theirs.next()), "it is routed"
    replies, _ = take_replies(["session-invite-a"], 1)
    error = json.loads(replies["wrong"][0])["error"]
    check(f"a group on the wrong database is refused: {error['code']}, {error['status']}",
          (error["code"], error["status"]) == ("credential_invalid", 401))
    check("it has no row and no text",
          len(texts()) == before and sql("select count(*) from sessions where message_id = 'wrong'", urls[0]) == "0")


def main():
    for recipe in [shards, groups]:
        print(f"\n{recipe.__name__}", flush=True)
        shell = Shell()
        try:
            recipe(shell)
        finally:
            shell.end()
    print("\nBoth recipes hold.")


if __name__ == "__main__":
    main()
