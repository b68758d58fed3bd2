"""Nobody takes more than a share: bytes, pixels, images, room, time; and for who leaves nothing is computed."""

from __future__ import annotations

import asyncio
import base64
import threading
import time

import pytest
import torch

from vitrail.serve.model import Model

MEGABYTE = 1_000_000


class Slow(Model):
    """A model that computes only when it may, and notes of how many images."""

    def __init__(self, task):
        super().__init__(task, torch.device("cpu"), torch.float32)
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.batches = []

    def predict(self, asked):
        self.batches.append(len(asked))
        self.begun.set()
        assert self.go_on.wait(20)
        return super().predict(asked)


@pytest.fixture
def slow(tiny):
    model = Slow(tiny())
    yield model
    model.go_on.set()


def send(connection, *images, path="/predict", **options):
    return connection.post(path, files=[("image", ("a.png", image)) for image in images], **options)


async def until(condition):
    """Wait for something that happens soon."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.005)


class TestBytes:
    def test_a_body_that_says_it_is_too_large_is_not_read(self, client):
        taken = []

        async def chunks():
            taken.append(1)
            yield b"x"

        headers = {"content-length": str(2_000_000_000), "content-type": "multipart/form-data; boundary=x"}
        response = client.post("/predict", content=chunks(), headers=headers)
        assert (response.status_code, taken) == (413, [])
        assert response.json() == {
            "error": "the upload is larger than 1 megabytes; send smaller images, or fewer at once."
        }

    @pytest.mark.parametrize(
        ("kind", "start"),
        [
            ("application/json", b'{"image": "'),
            (
                "multipart/form-data; boundary=x",
                b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n',
            ),
        ],
    )
    def test_a_body_that_does_not_say_is_refused_while_it_streams(self, client, kind, start):
        taken = []

        async def chunks():
            yield start
            for number in range(1000):  # a hundred megabytes in all
                taken.append(number)
                yield b"A" * 100_000

        response = client.post("/predict", content=chunks(), headers={"content-type": kind})
        assert response.status_code == 413
        assert len(taken) <= 12
        assert client.service.inside == 0

    @pytest.mark.parametrize("length", ["-1", "1e3", "9" * 400, "x"])
    def test_a_length_that_is_none(self, client, length):
        headers = {"content-length": length, "content-type": "application/json"}
        assert client.post("/predict", content=b"{}", headers=headers).status_code in (400, 413)

    def test_what_just_fits_is_taken(self, start, photo):
        data = photo()
        whole = len(b'{"image": ""}') + len(base64.b64encode(data))
        for spare, status in ((0, 200), (1, 413)):
            client = start(megabytes=(whole - spare) / MEGABYTE)
            body = b'{"image": "' + base64.b64encode(data) + b'"}'
            response = client.post("/predict", content=body, headers={"content-type": "application/json"})
            assert response.status_code == status


class TestPixelsAndImages:
    def test_too_many_pixels(self, client, photo):
        fits, large = photo(size=(100, 100)), photo(size=(101, 100))
        assert client.post("/predict", fits).status_code == 200
        response = client.post("/predict", large)
        assert response.status_code == 413
        assert "101 x 100 pixels; at least 1 and at most 10000 can be read" in response.json()["error"]
        both = client.post("/predict", fits, large)
        assert both.status_code == 200
        assert [bool(answer["error"]) for answer in both.json()["predictions"]] == [False, True]

    def test_64_images_and_no_more(self, client, photo):
        images = [photo(seed, size=(24, 16)) for seed in range(64)]
        response = client.post("/predict?top=1", *images)
        answers = response.json()["predictions"]
        assert [answer["image"] for answer in answers] == [f"photo-{number}.png" for number in range(64)]
        for number in (0, 17, 63):
            (alone,) = client.post("/predict?top=1", images[number]).json()["predictions"]
            assert alone["predictions"] == answers[number]["predictions"]
        sentence = {"error": "at most 64 images can be sent in one request; send several requests."}
        too_many = client.post("/predict", *images, images[0])
        assert (too_many.status_code, too_many.json()) == (413, sentence)
        texts = [base64.b64encode(image).decode() for image in (*images, images[0])]
        too_many = client.post("/predict", json={"images": texts})
        assert (too_many.status_code, too_many.json()) == (413, sentence)


class TestQueue:
    def test_where_there_is_no_room_one_is_told_to_come_again(self, start, slow, photo):
        client = start(slow, waiting=3)

        async def work(connection):
            first = asyncio.ensure_future(send(connection, photo(0)))
            await until(slow.begun.is_set)
            pair = asyncio.ensure_future(send(connection, photo(1), photo(2)))
            await until(lambda: client.service.inside == 3)
            refused = [await send(connection, photo(3), path=path) for path in ("/predict", "/view", "/embed")]
            slow.go_on.set()
            return await first, await pair, refused, await send(connection, photo(3))

        first, pair, refused, later = client.together(work)
        assert [response.status_code for response in (first, pair, later)] == [200, 200, 200]
        for response in refused:
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
            assert response.json() == {"error": "3 images wait already; try again in a second."}
        assert client.service.inside == 0

    def test_a_request_is_taken_whole_or_not_at_all(self, start, slow, photo):
        client = start(slow, waiting=3)

        async def work(connection):
            first = asyncio.ensure_future(send(connection, photo(0)))
            await until(slow.begun.is_set)
            refused = await send(connection, photo(1), photo(2), photo(3))
            slow.go_on.set()
            return await first, refused

        first, refused = client.together(work)
        assert (first.status_code, refused.status_code) == (200, 503)
        assert sum(slow.batches) == 1

    def test_there_is_no_room_for_a_body_either_that_is_only_being_read(self, start, photo):
        client = start(waiting=1)
        go_on = asyncio.Event()

        async def trickle():
            yield b"--x\r\n"
            await go_on.wait()
            yield b"--x--\r\n"

        async def work(connection):
            kind = {"content-type": "multipart/form-data; boundary=x"}
            reading = asyncio.ensure_future(connection.post("/predict", content=trickle(), headers=kind))
            await until(lambda: client.service.inside == 1)
            refused = await send(connection, photo())
            go_on.set()
            await reading
            return refused

        assert client.together(work).status_code == 503


class TestTime:
    def test_what_takes_too_long_is_given_up_and_not_computed(self, start, slow, photo):
        client = start(slow, seconds=0.5)

        async def work(connection):
            running = asyncio.ensure_future(send(connection, photo(0)))
            await until(slow.begun.is_set)
            waiting = await send(connection, photo(1))
            return await running, waiting

        for response in client.together(work):
            assert response.status_code == 504
            assert response.json() == {
                "error": "the answer took longer than 0.5 seconds; send fewer images, or try again later."
            }
        assert client.service.inside == 0
        slow.go_on.set()
        assert client.post("/predict", photo(2)).status_code == 200
        assert slow.batches == [1, 1]  # of the three, the one that waited was left out

    def test_a_body_that_trickles_in_is_given_up(self, start):
        client = start(seconds=0.3)

        async def trickle():
            yield b"{"
            await asyncio.sleep(20)

        response = client.post("/predict", content=trickle(), headers={"content-type": "application/json"})
        assert response.status_code == 504


def test_for_a_client_that_left_nothing_is_computed(start, slow, photo):
    client = start(slow)

    async def ask(image, gone):
        """A request straight to the application, whose client leaves when told."""
        body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + image + b"\r\n--x--\r\n"
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        headers = [(b"content-type", b"multipart/form-data; boundary=x")]
        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": headers}

        async def receive():
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            pass

        await client.door(scope, receive, send)

    async def run():
        stays, leaves = asyncio.Event(), asyncio.Event()
        first = asyncio.ensure_future(ask(photo(0), stays))
        await until(slow.begun.is_set)
        second = asyncio.ensure_future(ask(photo(1), leaves))
        await until(lambda: len(client.service.batcher) == 1)
        leaves.set()
        await second
        slow.go_on.set()
        await first

    asyncio.run(run())
    assert slow.batches == [1]
    assert client.service.inside == 0
    assert [line.status for line in client.lines] == [499, 200]
