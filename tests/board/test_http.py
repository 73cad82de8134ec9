"""What a stranger on the network can do to the board: raw requests to the real server."""

import re
import socket

import pytest

from tests.machine import wait_until

from .room import PASSWORD, Room, Visitor, not_run, screening


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """One board for all tests that leave it as it was."""
    room = Room(tmp_path_factory.mktemp("house"))
    room.scan = room.add_scan(
        "A77", [screening("aorta", "finding", "urgent"), not_run("emphysema")], pictures=["aorta"]
    )
    room.board = room.start()
    with Visitor(room.board.url) as visitor:
        visitor.log_in()
        room.cookie = visitor.client.cookies["board"]
    yield room
    room.close()


@pytest.fixture
def stranger(house):
    with Visitor(house.board.url) as visitor:
        yield visitor


@pytest.fixture
def inside(house):
    with Visitor(house.board.url) as visitor:
        visitor.client.cookies.set("board", house.cookie)
        yield visitor


PAGES = [
    "/",
    "/help",
    "/scans/1",
    "/scans/1/pictures/0",
    "/events",
    "/scans/999",
    "/nothing",
    "/login",
    "/static/board.js",
]


def raw(port: int, request: bytes, *, at_most_s: float = 60.0) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=at_most_s) as connection:
        answer = b""
        try:
            connection.sendall(request)
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionError:
            return answer  # what is refused in the middle is cut off
        return answer


@pytest.mark.parametrize("path", [page for page in PAGES if page not in {"/login", "/static/board.js"}])
def test_nothing_is_shown_before_the_login(stranger, path):
    answer = stranger.get(path)
    assert answer.status_code in {303, 401}
    assert "A77" not in answer.text
    assert answer.headers.get("location", "/login") == "/login"


@pytest.mark.parametrize("path", [*PAGES, "/static/../../../etc/passwd"])
@pytest.mark.parametrize("who", ["stranger", "inside"])
def test_every_answer_has_the_headers(request, path, who):
    visitor = request.getfixturevalue(who)
    with visitor.client.stream("GET", path) as answer:
        headers = answer.headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"
    assert "server" not in headers


def test_the_cookie_is_closed_to_scripts_and_other_sites(stranger):
    cookie = stranger.log_in().headers["set-cookie"]
    assert re.match(r"board=[\w-]{43}; HttpOnly; Path=/; SameSite=strict$", cookie)


def test_the_login_gives_another_cookie_than_the_one_before(stranger):
    before = stranger.get("/login").cookies["board"]
    assert stranger.log_in().cookies["board"] != before


def test_a_page_has_nothing_inline(inside):
    for path in ("/", "/help", "/scans/1", "/login"):
        text = inside.get(path).text
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=|javascript:|https?://", text)


@pytest.mark.parametrize("path", ["/login", "/logout", "/language", "/acknowledge"])
@pytest.mark.parametrize("token", ["", "0" * 64])
def test_a_form_of_another_page_is_refused(inside, path, token):
    answer = inside.post(path, {"password": PASSWORD, "language": "zh", "name": "x", "alerts": "1"}, token=token)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_form_of_another_site_is_refused_even_with_its_token(inside, headers):
    assert inside.post("/language", {"language": "zh"}, headers=headers).status_code == 403


def test_a_form_of_our_own_page_is_taken(house, inside):
    answer = inside.post(
        "/language", {"language": "zh"}, headers={"Origin": house.board.url, "Sec-Fetch-Site": "same-origin"}
    )
    assert answer.status_code == 303
    assert "最近的扫描" in inside.get("/").text


@pytest.mark.parametrize("host", [b"evil.example", b"127.0.0.1.evil.example", b"", b"127.0.0.1:80, evil.example"])
def test_another_name_is_refused(house, host):
    answer = raw(house.board.port, b"GET /login HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
    assert answer.split()[1] in {b"400", b"421"}
    assert b"evil" not in answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("host", [b"127.0.0.1:8443", b"localhost:1", b"LOCALHOST"])
def test_its_own_names_are_taken(house, host):
    answer = raw(house.board.port, b"GET /login HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
    assert answer.split()[1] == b"200"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/templates/board.html", "/static//etc/passwd",
        "/scans/1/pictures/..%2f..%2freport.json", "/scans/1/pictures/-1", "/scans/1/pictures/1", "/scans/0x1",
        "/scans/1/pictures/aorta.png", "/scans/99999999999999999999999999/pictures/0",
    ],
)  # fmt: skip
def test_no_path_leads_out(house, inside, path):
    cookie = f"board={inside.client.cookies['board']}".encode()
    answer = raw(
        house.board.port,
        b"GET "
        + path.encode()
        + b" HTTP/1.1\r\nHost: localhost\r\nCookie: "
        + cookie
        + b"\r\nConnection: close\r\n\r\n",
    )
    assert answer.split()[1] in {b"404", b"503"}
    assert b"import" not in answer
    assert b"root:" not in answer


def test_a_picture_whose_file_is_a_way_out_is_not_sent(house, inside):
    scan = house.add_scan("", pictures=["aorta"])
    picture = next((house.state / "results").glob(f"{scan}-*/key_images/aorta.png"))
    assert inside.get(f"/scans/{scan}/pictures/0").status_code == 200
    picture.unlink()
    picture.symlink_to(house.password_file)
    assert inside.get(f"/scans/{scan}/pictures/0").status_code == 404


def test_a_picture_is_a_picture(inside):
    answer = inside.get("/scans/1/pictures/0")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")


def test_too_much_is_refused(house, stranger):
    assert stranger.client.post("/login", content=b"x" * 20_000).status_code == 413
    chunks = (b"x" * 1000 for _ in range(40))
    assert stranger.client.post("/login", content=chunks).status_code == 413
    long = b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert raw(house.board.port, long).split()[1:2] in ([], [b"400"])


def test_many_fields_and_files_are_refused(stranger):
    token = stranger.token()
    files = {"password": ("x", b"y" * 100)}
    assert stranger.client.post("/login", data={"form_token": token}, files=files).status_code in {400, 403}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "TRACE", "PATCH", "OPTIONS"])
def test_other_methods_do_nothing(inside, method):
    assert inside.client.request(method, "/").status_code in {401, 404, 405}


def test_one_peer_cannot_take_all_connections(house, stranger):
    held = []
    try:
        for _ in range(60):
            connection = socket.create_connection(("127.0.0.1", house.board.port), timeout=30)
            connection.settimeout(0.2)
            held.append(connection)
        closed = 0
        for connection in held:
            try:
                closed += connection.recv(1) == b""
            except (TimeoutError, ConnectionError) as error:
                closed += isinstance(error, ConnectionError)
        assert closed >= 60 - 24
    finally:
        for connection in held:
            connection.close()
    wait_until(lambda: stranger.get("/login").status_code == 200, "the board for others again")


def test_everything_that_was_found_and_why_not(inside, house):
    text = inside.get(f"/scans/{house.scan}").text
    for words in ("Aorta", "FINDING (urgent)", "Emphysema", "5 mm slices; at most 3 mm", "send the thin slices too"):
        assert words in text
    assert "not reviewed" in text


def test_no_identifier_is_in_an_address(inside):
    pages = [inside.get(path).text for path in ("/", "/scans/1")]
    for target in re.findall(r'(?:href|src|action)="([^"]+)"', "".join(pages)):
        assert "A77" not in target
        assert "1.2.826" not in target


def test_the_log_names_nobody(visit, room):
    scan = room.add_scan("ACC-SECRET", pictures=["aorta"])
    (alert,) = room.raise_alert(scan)
    board = room.start()
    visitor = visit(board)
    visitor.get(f"/scans/{scan}")
    visitor.get("/nothing/ACC-SECRET")
    assert visitor.post("/acknowledge", {"name": "Nurse Secret", "alerts": str(alert)}).status_code == 303
    assert "acknowledged" in board.log()
    for secret in ("SECRET", "Secret", PASSWORD, "1.2.826", visitor.client.cookies["board"]):
        assert secret not in board.log()


def test_a_restart_logs_nobody_out(visit, room):
    room.add_scan()
    board = room.start()
    visitor = visit(board)
    assert board.stop() == 0
    again = Visitor(room.start().url)
    again.client.cookies = visitor.client.cookies
    assert again.get("/").status_code == 200
    again.client.close()


def test_it_listens_on_its_own_address_only(room):
    room.add_scan()
    board = room.start(address="127.0.0.2")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", board.port), timeout=30)
    socket.create_connection(("127.0.0.2", board.port), timeout=30).close()
