"""The requests of the refusal table: valid, unusual and malicious bytes, as a sender puts them on the wire.

The names are the keys of `refusals.json`, which holds the answers.
"""

from __future__ import annotations


def post(*fields: bytes, line: bytes = b"POST / HTTP/1.1", body: bytes = b"hi", host: bytes = b"Host: a.b") -> bytes:
    """A request with a Content-Length unless the fields frame the body themselves."""
    own = any(field.lower().startswith((b"content-length", b"transfer-encoding")) for field in fields)
    length = () if own else (b"Content-Length: %d" % len(body),)
    return b"\r\n".join((line, *((host,) if host else ()), *fields, *length, b"", body))


def get(line: bytes, *fields: bytes, host: bytes = b"Host: a.b") -> bytes:
    return b"\r\n".join((line, *((host,) if host else ()), *fields, b"", b""))


def chunked(body: bytes, *fields: bytes, coding: bytes = b"Transfer-Encoding: chunked") -> bytes:
    return post(coding, *fields, body=body)


PLAIN = post()
SECOND = post(line=b"POST /second HTTP/1.1", body=b"2")

REQUEST_LINE = {
    "plain": PLAIN,
    "get without a body": get(b"GET / HTTP/1.1"),
    "two spaces in the line": post(line=b"POST  / HTTP/1.1"),
    "two spaces before the version": post(line=b"POST /  HTTP/1.1"),
    "a tab in the line": post(line=b"POST\t/ HTTP/1.1"),
    "a space before the line": b" " + PLAIN,
    "a space after the version": post(line=b"POST / HTTP/1.1 "),
    "a third word": post(line=b"POST / x HTTP/1.1"),
    "no version": post(line=b"POST /"),
    "HTTP/0.9": b"GET /\r\n",
    "HTTP/0.9 in name": get(b"GET / HTTP/0.9"),
    "HTTP/1.0": get(b"GET / HTTP/1.0"),
    "HTTP/1.0 keep-alive": get(b"GET / HTTP/1.0", b"Connection: keep-alive"),
    "HTTP/1.0 with a body": post(line=b"POST / HTTP/1.0"),
    "HTTP/1.0 without a Host": get(b"GET / HTTP/1.0", host=b""),
    "HTTP/1.0 with chunks": chunked(b"2\r\nhi\r\n0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/1.2": get(b"GET / HTTP/1.2"),
    "HTTP/1.10": get(b"GET / HTTP/1.10"),
    "HTTP/2.0": get(b"GET / HTTP/2.0"),
    "HTTP/3.9": get(b"GET / HTTP/3.9"),
    "HTTP/11": get(b"GET / HTTP/11"),
    "HTTP/1.x": get(b"GET / HTTP/1.x"),
    "http in small letters": get(b"GET / http/1.1"),
    "another protocol": get(b"GET / ICE/1.0"),
    "RTSP": get(b"OPTIONS / RTSP/1.0"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40,
    "garbage": b"\x00\x01\x02\x03\r\n\r\n",
    "LF after the line": PLAIN.replace(b"1.1\r\n", b"1.1\n"),
    "CR after the line": PLAIN.replace(b"1.1\r\n", b"1.1\r"),
    "an empty line before": b"\r\n" + PLAIN,
    "two empty lines before": b"\r\n\r\n" + PLAIN,
    "many empty lines before": b"\r\n" * 200 + PLAIN,
    "LF before": b"\n" + PLAIN,
    "CR before": b"\r" + PLAIN,
    "a long line": get(b"GET /" + b"x" * 5000 + b" HTTP/1.1"),
    "a line of 4000": get(b"GET /" + b"x" * 3900 + b" HTTP/1.1"),
    "a line without an end": b"GET /" + b"x" * 20000,
    "a long method": get(b"M" * 100 + b" / HTTP/1.1"),
    "a NUL in the line": post(line=b"POST /\x00 HTTP/1.1"),
}

METHODS = {
    f"method {name.decode('latin-1')!r}": get(name + b" / HTTP/1.1")
    for name in (
        b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"PURGE", b"PROPFIND", b"SUBSCRIBE", b"SOURCE",
        b"get", b"Post", b"FOO", b"POST-X", b"G", b"GE T", b"P\xc3\x96ST", b"PO(ST", b"M-SEARCH", b"PRI", b"QUERY",
        b"DESCRIBE", b"FLUSH",
    )
}  # fmt: skip

TARGETS = {
    f"target {name.decode('latin-1')!r}": get(b"GET " + name + b" HTTP/1.1")
    for name in (
        b"/a/b~c;d=e@f:g", b"/?a=b", b"/a?b=c?d#e", b"/#f", b"/%41%2f", b"/%zz", b"/%", b"/a b", b"//a//b", b"/../x",
        b"*", b"?a", b"a", b"x/y", b"http://c.d/", b"http://c.d", b"HTTP://c.d/p?q", b"https://u:p@c.d:8/p",
        b"ftp://c.d/",
        b"http:///", b"http://", b"http:/c", b"c.d:80", b"/\xc3\xb6", b"/\xff", b'/"<>\\^`{|}', b"/\x7f", b"/\x01",
        b"/a\tb",
        b"http://c.d:x/", b"http://[::1]/", b"http://c d/", b"http://c.d/%2f?x", b"http://c.d?x", b"http://c_d/",
        b"/%00", b"/%0d%0a", b"\\",
    )
} | {
    "CONNECT": get(b"CONNECT c.d:80 HTTP/1.1"),
    "CONNECT with data behind it": get(b"CONNECT c.d:80 HTTP/1.1") + b"any bytes",
    "CONNECT a path": get(b"CONNECT / HTTP/1.1"),
    "OPTIONS *": get(b"OPTIONS * HTTP/1.1"),
    "GET *": get(b"GET * HTTP/1.1"),
}  # fmt: skip

FIELDS = {
    "a space before the colon": post(b"x : y"),
    "a tab before the colon": post(b"x\t: y"),
    "a space in a name": post(b"x y: z"),
    "a folded line": post(b"x: y\r\n z"),
    "a folded line with a tab": post(b"x: y\r\n\tz"),
    "a folded first line": post(b" x: y", host=b""),
    "a space before the first name": post(b" x: y"),
    "a bare LF in a value": post(b"x: y\nz: w"),
    "a bare CR in a value": post(b"x: y\rz: w"),
    "a bare CR at the end": post(b"x: y\r"),
    "LF for CRLF": PLAIN.replace(b"\r\n", b"\n"),
    "LF LF at the end of the head": PLAIN.replace(b"\r\n\r\n", b"\n\n"),
    "CRLF LF at the end of the head": PLAIN.replace(b"\r\n\r\n", b"\r\n\n"),
    "CR LF CR at the end of the head": PLAIN.replace(b"\r\n\r\n", b"\r\n\r"),
    "a NUL in a value": post(b"x: a\x00b"),
    "a NUL in a name": post(b"x\x00: b"),
    "a control in a value": post(b"x: a\x01b"),
    "a DEL in a value": post(b"x: a\x7fb"),
    "a tab in a value": post(b"x: a\tb"),
    "bytes beyond ASCII in a value": post(b"x: \xc3\xbc\xff"),
    "bytes beyond ASCII in a name": post(b"x\xc3\xbc: y"),
    "no colon": post(b"xy"),
    "no name": post(b": y"),
    "no value": post(b"x:"),
    "only spaces as a value": post(b"x:  \t "),
    "an odd name": post(b"!#$%&'*+-.^_`|~09: y"),
    "a bracket in a name": post(b"x[y]: z"),
    "a quote in a name": post(b'"x": z'),
    "an at in a name": post(b"x@y: z"),
    "an underscore in a name": post(b"x_y: z"),
    "an underscored length": post(b"content_length: 5"),
    "an underscored proxy name": post(b"x_forwarded_for: z"),
    "a field twice": post(b"x: y", b"X: z"),
    "a field of 8000": post(b"x: " + b"y" * 8000),
    "a field of 9000": post(b"x: " + b"y" * 9000),
    "a field without an end": b"POST / HTTP/1.1\r\nx: " + b"y" * 300_000,
    "a name of 9000": post(b"y" * 9000 + b": x"),
    "98 fields": post(*(b"x%d: y" % number for number in range(96))),
    "101 fields": post(*(b"x%d: y" % number for number in range(99))),
    "200 fields": post(*(b"x%d: y" % number for number in range(200))),
    "fields without an end": b"POST / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000,
    "90 fields of 4000": post(*(b"x%d: %s" % (number, b"y" * 4000) for number in range(90))),
}

HOST = {
    "no Host": post(host=b""),
    "two Hosts": post(b"Host: c.d"),
    "two equal Hosts": post(b"Host: a.b"),
    "an empty Host": post(host=b"Host:"),
    "a Host with a space": post(host=b"Host: a b"),
    "a Host with a slash": post(host=b"Host: a/b"),
    "a Host with an at": post(host=b"Host: x@a.b"),
    "a Host with a port": post(host=b"Host: a.b:80"),
    "a Host with a bad port": post(host=b"Host: a.b:x"),
    "a Host of bytes": post(host=b"Host: \xff\xfe"),
    "a list of Hosts": post(host=b"Host: a.b, c.d"),
    "a Host beside an absolute target": post(line=b"POST http://c.d/ HTTP/1.1"),
    "no Host beside an absolute target": post(line=b"POST http://c.d/ HTTP/1.1", host=b""),
}

LENGTHS = {
    f"length {value.decode('latin-1')!r}": post(b"Content-Length: " + value)
    for value in (
        b"", b"2 ", b"+2", b"-2", b"02", b"0x2", b"2.0", b"1_0", b"2a", b"a", b"2, 2", b"2,3", b"2 2", b"\xb2", b"1e1",
        b"2;q", b"99999999999999999999999", b"18446744073709551618", b"000000000000000000002", b"1048577000",
    )
} | {
    "two equal lengths": post(b"Content-Length: 2", b"Content-Length: 2"),
    "two lengths": post(b"Content-Length: 2", b"Content-Length: 1"),
    "two lengths, the first longer": post(b"Content-Length: 3", b"Content-Length: 2"),
    "a length twice, once empty": post(b"Content-Length: 2", b"Content-Length:"),
    "a length with a GET": get(b"GET / HTTP/1.1", b"Content-Length: 2") + b"hi",
    "no length and no body": get(b"POST / HTTP/1.1"),
    "no length and bytes behind": get(b"POST / HTTP/1.1") + b"hi",
    "a body shorter than its length": post(b"Content-Length: 5"),
    "a folded length": post(b"Content-Length:\r\n 2"),
    "a space before a length's colon": post(b"Content-Length : 2"),
}  # fmt: skip

CODINGS = {
    f"coding {value.decode('latin-1')!r}": chunked(b"2\r\nhi\r\n0\r\n\r\n", coding=b"Transfer-Encoding: " + value)
    for value in (
        b"chunked", b"Chunked", b" chunked ", b"chunked\t", b"chunked;q=1", b"xchunked", b"chunkedx", b"chunked x", b"",
        b"identity", b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"chunked,", b",chunked",
        b"identity, chunked", b"\x0bchunked", b'"chunked"', b"chun\xc4\xb8ed", b"deflate, chunked",
    )
} | {
    "a length and chunks": chunked(b"2\r\nhi\r\n0\r\n\r\n", b"Content-Length: 3"),
    "chunks and a length": post(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"2\r\nhi\r\n0\r\n\r\n"),
    "a length of zero and chunks": post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "a length and a folded coding": post(b"Content-Length: 2", b"Transfer-Encoding:\r\n chunked"),
    "a length and a coding with a space": post(b"Content-Length: 2", b"Transfer-Encoding : chunked"),
    "a length and an underscored coding": post(b"Content-Length: 2", b"Transfer_Encoding: chunked"),
    "a length and a coding behind a bare CR": post(b"Content-Length: 2", b"x: y\rTransfer-Encoding: chunked"),
    "a length and identity": post(b"Content-Length: 2", b"Transfer-Encoding: identity"),
    "two codings": chunked(b"2\r\nhi\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
    "two codings, one unknown": chunked(b"2\r\nhi\r\n0\r\n\r\n", b"Transfer-Encoding: x"),
    "two codings, chunked last": chunked(
        b"2\r\nhi\r\n0\r\n\r\n", coding=b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"
    ),
    "chunks with a GET": chunked(b"2\r\nhi\r\n0\r\n\r\n").replace(b"POST", b"GET"),
}  # fmt: skip

CHUNKS = {
    f"chunks {value.decode('latin-1')!r}"[:60]: chunked(value)
    for value in (
        b"2\r\nhi\r\n0\r\n\r\n", b"02\r\nhi\r\n0\r\n\r\n", b"0\r\n\r\n", b"A\r\n0123456789\r\n0\r\n\r\n",
        b"a\r\n0123456789\r\n000\r\n\r\n", b"2;x=y\r\nhi\r\n0\r\n\r\n", b'2;x="y;z"\r\nhi\r\n0\r\n\r\n',
        b"2;\r\nhi\r\n0\r\n\r\n", b"2;x\nhi\r\n0\r\n\r\n", b"2;x\ry\r\nhi\r\n0\r\n\r\n", b"2;x\x00\r\nhi\r\n0\r\n\r\n",
        b"2 \r\nhi\r\n0\r\n\r\n", b" 2\r\nhi\r\n0\r\n\r\n", b"2 ;x\r\nhi\r\n0\r\n\r\n", b"+2\r\nhi\r\n0\r\n\r\n",
        b"-2\r\nhi\r\n0\r\n\r\n", b"0x2\r\nhi\r\n0\r\n\r\n", b"2_0\r\nhi\r\n0\r\n\r\n", b"g\r\nhi\r\n0\r\n\r\n",
        b"\r\nhi\r\n0\r\n\r\n", b"2\nhi\r\n0\r\n\r\n", b"2\r\nhi\n0\r\n\r\n", b"2\r\nhi0\r\n\r\n",
        b"2\r\nhix\r\n0\r\n\r\n",
        b"2\r\nhi\r\n0\r\n\n", b"2\r\nhi\r\n0\n\n", b"2\r\nhi\r\n0\r\n", b"2\r\nhi\r\n", b"3\r\nhi\r\n0\r\n\r\n",
        b"2\rhi\r\n0\r\n\r\n", b"10000000000000002\r\nhi\r\n0\r\n\r\n", b"fffffffffffffffff\r\nhi\r\n0\r\n\r\n",
        b"00000000000000000002\r\nhi\r\n0\r\n\r\n", b"2\r\nhi\r\n0\r\nx: y\r\n\r\n",
        b"2\r\nhi\r\n0\r\nContent-Length: 9\r\n\r\n",
        b"2\r\nhi\r\n0\r\nHost: c.d\r\n\r\n", b"2\r\nhi\r\n0\r\nTransfer-Encoding: x\r\n\r\n",
        b"2\r\nhi\r\n0\r\nx : y\r\n\r\n",
        b"2\r\nhi\r\n0\r\nx: y\r\n z\r\n\r\n", b"2\r\nhi\r\n0\r\nxy\r\n\r\n", b"2\r\nhi\r\n0\r\nx: \x00\r\n\r\n",
        b"2\r\nhi\r\n0\r\nx: y\n\r\n", b"2\r\nhi\r\n0\r\nx: y\rz: w\r\n\r\n", b"4\r\n\r\n\r\n\r\n0\r\n\r\n",
    )
} | {
    "a long chunk extension": chunked(b"2;x=" + b"y" * 300 + b"\r\nhi\r\n0\r\n\r\n"),
    "an endless chunk extension": chunked(b"2;x=" + b"y" * 300_000),
    "many chunk extensions": chunked(b"1;" + b"x" * 15 + b"\r\na\r\n0\r\n\r\n"),
    "an endless chunk size": chunked(b"0" * 300_000),
    "an endless trailer": chunked(b"2\r\nhi\r\n0\r\n" + b"x: y\r\n" * 50_000),
    "a long trailer": chunked(b"2\r\nhi\r\n0\r\nx: " + b"y" * 20_000 + b"\r\n\r\n"),
}  # fmt: skip

CONNECTION = {
    "Connection: close": post(b"Connection: close"),
    "Connection: Close": post(b"Connection: Close"),
    "Connection: keep-alive": post(b"Connection: keep-alive"),
    "Connection: close, te": post(b"Connection: close, te"),
    "Connection: keep-alive, close": post(b"Connection: keep-alive, close"),
    "Connection twice": post(b"Connection: keep-alive", b"Connection: close"),
    "Connection: x": post(b"Connection: x"),
    "Upgrade: websocket": get(
        b"GET / HTTP/1.1", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: eA==",
    ),
    "Upgrade: h2c": get(
        b"GET / HTTP/1.1", b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: x"
    ),
    "Upgrade with a body": post(b"Upgrade: h2c", b"Connection: Upgrade"),
    "Upgrade with chunks": chunked(b"2\r\nhi\r\n0\r\n\r\n", b"Upgrade: h2c", b"Connection: Upgrade"),
    "Upgrade and a second request": get(b"GET / HTTP/1.1", b"Upgrade: h2c", b"Connection: Upgrade") + SECOND,
    "Upgrade without Connection": get(b"GET / HTTP/1.1", b"Upgrade: websocket"),
    "Expect: 100-continue": post(b"Expect: 100-continue", body=b""),
    "Expect with a body that is there": post(b"Expect: 100-continue"),
    "Expect with a body to come": post(b"Expect: 100-continue", b"Content-Length: 2", body=b""),
    "Expect: 100-Continue": post(b"Expect: 100-Continue", b"Content-Length: 2", body=b""),
    "Expect: something else": post(b"Expect: x"),
    "Expect twice": post(b"Expect: 100-continue", b"Expect: 100-continue"),
    "Expect of HTTP/1.0": post(b"Expect: 100-continue", b"Content-Length: 2", line=b"POST / HTTP/1.0", body=b""),
    "Proxy-Connection": post(b"Proxy-Connection: close"),
    "X-Forwarded-Proto": post(b"X-Forwarded-Proto: https"),
    "contradicting proxy fields": post(b"X-Forwarded-Proto: https", b"X-Forwarded-Ssl: off"),
    "two X-Forwarded-Proto": post(b"X-Forwarded-Proto: https", b"X-Forwarded-Proto: http"),
    "PROXY protocol": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + PLAIN,
    "PROXY protocol 2": b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + b"\x00" * 12 + PLAIN,
}  # fmt: skip

PIPELINED = {
    "two requests": PLAIN + SECOND,
    "a chunked and another": chunked(b"2\r\nhi\r\n0\r\n\r\n") + SECOND,
    "two chunked": chunked(b"2\r\nhi\r\n0\r\n\r\n") + chunked(b"1\r\nx\r\n0\r\nt: u\r\n\r\n"),
    "a chunked body of empty lines, and another": chunked(b"8\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n") + SECOND,
    "close and another": post(b"Connection: close") + SECOND,
    "HTTP/1.0 and another": post(line=b"POST / HTTP/1.0") + SECOND,
    "an empty line between": PLAIN + b"\r\n" + SECOND,
    "two empty lines between": PLAIN + b"\r\n\r\n" + SECOND,
    "garbage behind": PLAIN + b"\x00garbage\r\n\r\n",
    "a bad request behind": PLAIN + post(b"x : y"),
    "a body longer than its length": post(b"Content-Length: 2", body=b"hiGET /second HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a request smuggled in a body": post(body=SECOND),
    "a request smuggled in a chunk": chunked(b"%x\r\n%s\r\n0\r\n\r\n" % (len(SECOND), SECOND)),
    "a request behind a GET with chunks": chunked(b"0\r\n\r\n").replace(b"POST", b"GET") + SECOND,
    "a HEAD and another": get(b"HEAD / HTTP/1.1") + SECOND,
    "a request behind CONNECT": get(b"CONNECT c.d:80 HTTP/1.1") + SECOND,
}

REQUESTS = (
    REQUEST_LINE | METHODS | TARGETS | FIELDS | HOST | LENGTHS | CODINGS | CHUNKS | CONNECTION | PIPELINED
)  # fmt: skip
