"""The client of the package `pygls` against the JSON-RPC example: jsonrpc_lsp.py BINARY"""

import asyncio
import sys

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient

URI = "file:///words.txt"
TEXT = "one two\r\n\N{GRINNING FACE} two w\u00f6rter\rtwo"


async def hover(client, line, character):
    return await client.text_document_hover_async(
        types.HoverParams(types.TextDocumentIdentifier(URI), types.Position(line, character))
    )


async def fails(code, awaitable):
    try:
        result = await awaitable
    except JsonRpcException as error:
        assert error.code == code, error
    else:
        raise AssertionError(f"{result} and no error {code}")


async def talk(shuts_down):
    client = LanguageClient("test", "1")
    await client.start_io(sys.argv[1])
    server = client._server
    await fails(-32002, hover(client, 0, 0))
    result = await client.initialize_async(
        types.InitializeParams(capabilities=types.ClientCapabilities())
    )
    assert result.server_info.name == "words", result
    assert result.capabilities.text_document_sync.change == types.TextDocumentSyncKind.Full
    client.initialized(types.InitializedParams())
    await fails(-32602, hover(client, 0, 0))

    document = types.TextDocumentItem(URI, "plaintext", 1, TEXT)
    client.text_document_did_open(types.DidOpenTextDocumentParams(document))
    at_two = await hover(client, 1, 4)
    assert at_two.contents == "two: 3 of 5 words", at_two
    assert at_two.range == types.Range(types.Position(1, 3), types.Position(1, 6)), at_two
    assert (await hover(client, 2, 3)).contents == "two: 3 of 5 words"
    assert (await hover(client, 1, 9)).contents == "w\u00f6rter: 1 of 5 words"
    assert (await hover(client, 1, 0)).contents == "5 words"

    large = "word " * 1_000_000
    for version, text in [(2, large), (3, "x" * (9 << 20)), (4, "new words")]:
        client.text_document_did_change(
            types.DidChangeTextDocumentParams(
                types.VersionedTextDocumentIdentifier(version, URI),
                [types.TextDocumentContentChangeWholeDocument(text)],
            )
        )
        # The text of 9 MiB is too long and refused. The one before it stays.
        wanted = {2: "word: 1000000 of 1000000 words", 3: "word: 1000000 of 1000000 words"}
        wanted = wanted.get(version, "new: 1 of 2 words")
        assert (await hover(client, 0, 1)).contents == wanted
    answers = await asyncio.gather(*(hover(client, 0, 5) for _ in range(500)))
    assert {answer.contents for answer in answers} == {"words: 1 of 2 words"}

    await fails(-32601, client.workspace_symbol_async(types.WorkspaceSymbolParams(query="")))
    client.text_document_did_close(
        types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(URI))
    )
    await fails(-32602, hover(client, 0, 0))
    if shuts_down:
        assert await client.shutdown_async(None) is None
        await fails(-32600, hover(client, 0, 0))
    client.exit(None)
    code = await asyncio.wait_for(server.wait(), 10)
    assert code == (0 if shuts_down else 1), code
    await client.stop()


for shuts_down in [True, False]:
    asyncio.run(asyncio.wait_for(talk(shuts_down), 60))
print("pygls: ok")
