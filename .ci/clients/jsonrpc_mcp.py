"""The client of the package `mcp` against the JSON-RPC example: jsonrpc_mcp.py BINARY"""

import asyncio
import sys

from mcp import Client, StdioServerParameters

TEXT = 'one two\nthree "quoted" \N{GRINNING FACE} \u6771\u4eac'


async def talk(mode):
    server = StdioServerParameters(command=sys.argv[1])
    async with Client(server, mode=mode) as client:
        tools = await client.list_tools()
        assert [tool.name for tool in tools.tools] == ["count_words"], tools
        result = await client.call_tool("count_words", {"text": TEXT})
        assert not result.is_error, result
        assert result.structured_content == {"words": 5, "lines": 2, "characters": len(TEXT)}, result
        assert result.content[0].text == f"5 words, 2 lines, {len(TEXT)} characters", result

        # Many requests at a time, and a large one
        texts = ["word " * count for count in range(100)] + ["word " * 1_000_000]
        results = await asyncio.gather(
            *(client.call_tool("count_words", {"text": text}) for text in texts)
        )
        words = [result.structured_content["words"] for result in results]
        assert words == [*range(100), 1_000_000], words

        # The answer to a message that is too long is an error that belongs to no request. The session goes on.
        try:
            await client.call_tool("count_words", {"text": "x" * (9 << 20)}, read_timeout_seconds=2)
            raise AssertionError("9 MiB were taken")
        except Exception as error:
            assert "timed out" in str(error).lower(), error
        result = await client.call_tool("count_words", {})
        assert result.is_error, result
        for name in ["other", ""]:
            try:
                await client.call_tool(name, {})
                raise AssertionError(f"there is a tool {name!r}")
            except Exception as error:
                assert "no such tool" in str(error), error
        await client.send_ping()


for mode in ["legacy", "auto"]:
    asyncio.run(asyncio.wait_for(talk(mode), 60))
print("mcp: ok")
