// basic-ftp against the FTP example: ftp_client.js HOST:PORT SCRATCH_DIRECTORY

const assert = require("node:assert")
const fs = require("node:fs")
const path = require("node:path")
const { Client } = require("basic-ftp")

const [addr, scratch] = process.argv.slice(2)
const [host, port] = [addr.slice(0, addr.lastIndexOf(":")), Number(addr.slice(addr.lastIndexOf(":") + 1))]

async function main() {
    const client = new Client(20000)
    await client.access({ host, port, user: "me", password: "secret" })
    assert((await client.features()).has("MLST"))
    const there = path.join(scratch, "ftp-node"), back = path.join(scratch, "ftp-node-back")
    fs.mkdirSync(path.join(there, "ein Ordner", "-x"), { recursive: true })
    const names = ["größe", "ein Ordner/ so was ", "ein Ordner/-x/-y"]
    names.forEach((name, i) => fs.writeFileSync(path.join(there, name), Buffer.alloc(i * 700000, name)))
    await client.ensureDir("/node")
    await client.uploadFromDir(there)
    await client.downloadToDir(back)
    for (const name of names) {
        assert(fs.readFileSync(path.join(there, name)).equals(fs.readFileSync(path.join(back, name))), name)
    }
    const big = path.join(there, "ein Ordner", "-x", "-y"), size = fs.statSync(big).size
    assert.equal(await client.size("/node/ein Ordner/-x/-y"), size)
    assert.equal(await client.pwd(), "/node")
    await client.appendFrom(big, "größe")
    const part = path.join(scratch, "ftp-node-part")
    fs.writeFileSync(part, fs.readFileSync(big).subarray(0, 1000))
    await client.downloadTo(part, "größe", 1000)
    assert(fs.readFileSync(part).equals(fs.readFileSync(big)))
    await client.rename("größe", "anders")
    assert.deepEqual((await client.list()).map(file => file.name).sort(), ["anders", "ein Ordner"])
    assert((await client.lastMod("anders")) > new Date(Date.now() - 600000))
    await assert.rejects(client.downloadTo(part, "../../etc/passwd"), { code: 550 })
    await client.removeDir("/node")
    assert.deepEqual(await client.list("/"), [])
    client.close()
    console.log("basic-ftp: ok")
}

main().catch(error => {
    console.error("FAILED: basic-ftp:", error)
    process.exit(1)
})
