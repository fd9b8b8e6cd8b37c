"""A server whose times are known: it answers nonsense, the first token --first ms after a request and every next one --each ms later, however
many requests there are. What a client says of it can be held against that.

    peers/bin/python ci/peers/known_server.py model --port 8090 --first 50 --each 5

Speaks as much of the OpenAI API as our client and guidellm ask for (chat, streamed, usage at the end), and llama-server's /slots. `model` is the
folder with tokenizer.json, by which prompts are counted. Needs tokenizers.
"""

import argparse
import asyncio
import json
import pathlib
import time

from tokenizers import Tokenizer

BUSY = 0


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(choices, usage=None):
    body = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": choices}
    return b"data: " + json.dumps(body | ({"usage": usage} if usage else {})).encode() + b"\n\n"


def delta(content, end=None):
    return [{"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": end}]


async def answer(writer, asked, a):
    """Streams as many tokens as were asked for, each at its own time whatever the one before it took."""
    global BUSY
    began, BUSY = time.monotonic(), BUSY + 1
    try:
        text = " ".join(str(m["content"]) for m in asked["messages"])
        tokens = int(asked.get("max_completion_tokens") or asked.get("max_tokens") or 16)
        usage = {"prompt_tokens": len(a.tokenizer.encode(text).ids), "completion_tokens": tokens}
        usage["total_tokens"] = sum(usage.values())
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for i in range(tokens):
            due = began + (a.first + i * a.each) / 1e3
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(chunk(event(delta(" word"))))
            await writer.drain()
        writer.write(chunk(event(delta("", "length"))) + chunk(event([], usage)) + chunk(b"data: [DONE]\n\n") + chunk(b""))
        await writer.drain()
    finally:
        BUSY -= 1


async def serve(reader, writer, a):
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode("latin-1").split("\r\n")
            lengths = [line.split(":", 1)[1] for line in lines if line.lower().startswith("content-length:")]
            body = await reader.readexactly(int(lengths[0])) if lengths else b""
            if "/chat/completions" in lines[0]:
                await answer(writer, json.loads(body), a)
                continue
            said = [{"is_processing": BUSY > 0}] if "/slots" in lines[0] else {"status": "ok", "object": "list", "data": [{"id": "m", "object": "model"}]}
            said = json.dumps(said).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(said), said))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--first", type=float, default=50)
    parser.add_argument("--each", type=float, default=5)
    a = parser.parse_args()
    a.tokenizer = Tokenizer.from_file(str(a.folder / "tokenizer.json"))
    server = await asyncio.start_server(lambda r, w: serve(r, w, a), "127.0.0.1", a.port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
