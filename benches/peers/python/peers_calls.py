"""Functions of asyncq that are measured; their names in the store are `peers_calls.noop` and so on."""
import asyncq, time


@asyncq.function(service="events")
def noop(a, b): pass


@asyncq.function(service="events")
def line(a, b):
    print("Computing", a, "+", b)


@asyncq.function(service="events")
def sleep1(a, b):
    time.sleep(0.001)


@asyncq.function(service="events")
def sleep3(a, b):
    time.sleep(0.003)


@asyncq.function(service="mail")
def mail(a, b): pass
