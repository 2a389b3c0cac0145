"""redis-py against the Redis example: redis_client.py HOST:PORT"""

import sys
import threading

import redis

host, port = sys.argv[1].rsplit(":", 1)


def connect(**options):
    return redis.Redis(host=host, port=int(port), protocol=2, decode_responses=True, **options)


r = connect(client_name="tester")
assert r.ping() and r.flushall() and r.client_getname() == "tester"
assert r.echo("häuser") == "häuser"

# Strings and keys.
assert r.set("a", "1") and r.get("a") == "1" and r.get("none") is None
assert r.set("a", "2", nx=True) is None and r.set("b", "2", xx=True) is None
assert r.set("a", "2", ex=100, xx=True) and 98 <= r.ttl("a") <= 100
assert r.getset("a", "3") == "2" and r.ttl("a") == -1 and r.ttl("none") == -2
assert r.incr("n") == 1 and r.incrby("n", 41) == 42 and r.decr("n") == 41
assert r.mset({"x": "1", "y": "2"}) and r.mget("x", "none", "y") == ["1", None, "2"]
assert r.append("x", "23") == 3 and r.strlen("x") == 3
assert r.exists("x", "y", "none") == 2 and r.delete("x", "y", "none") == 2
assert r.expire("n", 50) and r.ttl("n") in (49, 50) and not r.expire("none", 50)
assert r.dbsize() == 2 and r.info()["db0"]["keys"] == 2
big = "x" * 5_000_000
assert r.set("big", big) and r.get("big") == big and r.strlen("big") == len(big)
raw = redis.Redis(host=host, port=int(port), protocol=2)
every = bytes(range(256)) * 3
assert raw.set(every, every) and raw.get(every) == every

# Lists and hashes.
assert r.rpush("l", "b", "c") == 2 and r.lpush("l", "a") == 3
assert r.lrange("l", 0, -1) == ["a", "b", "c"] and r.llen("l") == 3
assert r.lpop("l") == "a" and r.rpop("l", 5) == ["c", "b"] and r.lpop("l") is None
assert r.hset("h", mapping={"f": "1", "g": "2"}) == 2 and r.hget("h", "f") == "1"
assert r.hgetall("h") == {"f": "1", "g": "2"}

# Commands that are refused.
for refused, words in [
    (lambda: r.get("h"), "WRONGTYPE"),
    (lambda: r.incr("big"), "not an integer"),
    (lambda: r.execute_command("NONE", "x"), "unknown command 'NONE'"),
    (lambda: r.execute_command("GET"), "wrong number of arguments for 'get'"),
]:
    try:
        refused()
    except redis.ResponseError as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)

# Pipelines, from several connections at once: nothing is lost or doubled.
def count():
    mine = connect()
    for _ in range(20):
        with mine.pipeline(transaction=False) as pipeline:
            for _ in range(500):
                pipeline.incr("counter")
            pipeline.execute()


threads = [threading.Thread(target=count) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert r.get("counter") == "80000"

# Publish and subscribe.
with connect().pubsub() as hearer:
    hearer.subscribe("news", "other")
    assert [hearer.get_message(timeout=10)["type"] for _ in range(2)] == ["subscribe"] * 2
    assert r.publish("news", "hello") == 1 and r.publish("none", "hello") == 0
    message = hearer.get_message(timeout=10)
    assert (message["channel"], message["data"]) == ("news", "hello"), message
    hearer.unsubscribe()
    assert [hearer.get_message(timeout=10)["type"] for _ in range(2)] == ["unsubscribe"] * 2

assert r.flushall() and r.dbsize() == 0
print(f"redis-py {redis.__version__}: ok")
