"""What type checkers see. Lines with `# error` have to be refused, and no others."""

import sqlite3
from datetime import datetime
from typing import Any, assert_type

import asyncq


@asyncq.function(service="events")
def add(a: int, b: int) -> int:
    return a + b


@asyncq.function("events")
async def later(word: str) -> str:
    return word


@asyncq.function("events", takes="word [times:int]", secret=["word", 2], env_file=None)
def hide(word: str, times: int = 1) -> None: ...


async def main(db: sqlite3.Connection) -> None:
    assert_type(add(1, 2), int | None)
    assert_type(add.undecorated(1, 2), int)
    assert_type(add.enqueue(1, 2), asyncq.Job[int])
    assert_type(add.enqueue(1, 2).wait(timeout=5), int)
    assert_type(add.enqueue(1, 2).result, int)
    assert_type(await add.aenqueue(1, b=2), asyncq.Job[int])
    assert_type(add.using(db, priority=-5, delay=60).enqueue(1, 2), asyncq.Job[int])
    assert_type(await later("x"), str | None)
    assert_type(await later.undecorated("x"), str)
    assert_type(later.enqueue("x"), asyncq.Job[str])
    assert_type(await later.aenqueue("x"), asyncq.Job[str])
    assert_type(await later.using(key="k").aenqueue("x"), asyncq.Job[str])
    assert_type(asyncq.remote("events", "resize")("a.png"), Any)
    assert_type(asyncq.job(7).result, Any)
    asyncq.process("events", max_jobs=1, wait=5, grace="10s", except_=["site-*"])
    assert_type(asyncq.schedule("nightly", add.using(lane="x"), args=[1, 2], cron="30 2 * * *", tz="UTC"), asyncq.Schedule)
    assert_type(asyncq.Schedule("nightly").info.next_tick, datetime | None)
    assert_type(asyncq.next_ticks(every=90), list[datetime])
    assert_type(asyncq.wait_any([add.enqueue(1, 2)]).result, int)
    assert_type(add.enqueue(1, 2).rerun().follow(), int)
    assert_type(add.enqueue(1, 2).explain().reasons[0].code, str)
    assert_type(asyncq.status("ev*").services[0].queued, int)
    asyncq.define_service("events", keep="forever", keep_errors=3600)
    add("1", 2)  # error
    add(1)  # error
    add.enqueue(1, 2, 3)  # error
    add.using(colour="red").enqueue(1, 2)  # error
    add.using(key=7).enqueue(1, 2)  # error
    await later(7)  # error
    await later.aenqueue()  # error
    asyncq.function(7)  # error
    asyncq.function("events", takes=7)  # error
    asyncq.function("events", secret=7)  # error
    asyncq.schedule("nightly", "add", every=90)  # error
    asyncq.schedule("nightly", add, every=90, missed="twice")  # error
    asyncq.define_service("events", keep="30d")  # error
