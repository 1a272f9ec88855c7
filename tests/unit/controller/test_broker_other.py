"""Entering a broker that is not ours: files of accounts and certificates."""

import ssl

import pytest

from litho.errors import ConfigError
from litho_controller import broker_other as other
from litho_controller import config
from litho_controller.broker_other import Login
from litho_controller.keys import Broker


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("litho:secret\n", Login("litho", "secret")),
        ("litho:a:b c", Login("litho", "a:b c")),
        ("litho:secret\r\n", Login("litho", "secret")),
        ("", None),
        ("litho\n", None),
        ("litho:\n", None),
        (":secret\n", None),
        ("litho:secret\nnodes:other\n", None),
        ("litho:sec\x00ret", None),
    ],
)
def test_an_account_is_one_line(text, found):
    assert other.parse_login(text) == found


def test_without_files_there_are_no_accounts_and_no_tls():
    assert other.read(Broker(embedded=False)) == other.Entry()
    assert other.context("") is None


@pytest.mark.parametrize(
    ("key", "content", "says"),
    [
        ("login", None, "cannot be read"),
        ("login", b"nothing", "holds no account"),
        ("node_login", b"u:" + b"x" * 2000, "has more than 1024 bytes"),
        ("login", b"\xff:x", "is no text"),
        ("ca", b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n", "holds no certificates"),
        ("ca", b"", "holds no certificates"),
    ],
)
def test_a_file_that_is_none_is_a_sentence_that_names_key_and_file(tmp_path, key, content, says):
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"broker\.{key}: the file {file} {says}") as caught:
        other.read(Broker(embedded=False, **{key: str(file)}))
    assert "nonsense" not in str(caught.value) and "nothing" not in str(caught.value)


def test_an_account_that_every_user_may_read_is_warned_of_without_its_password(tmp_path, caplog):
    file = tmp_path / "login"
    file.write_text("litho:secret\n")
    for mode, warned in ((0o640, False), (0o644, True)):
        file.chmod(mode)
        assert other.read(Broker(embedded=False, login=str(file))).controller == Login("litho", "secret")
        assert (f"chmod o= {file}" in caplog.text) == warned
    assert "secret" not in caplog.text


def test_tls_believes_in_the_given_certificates_alone_and_in_names():
    with open("/etc/ssl/certs/ca-certificates.crt") as file:  # noqa: PTH123 - any certificate will do
        one = file.read().partition("-----END CERTIFICATE-----")
    context = other.context(one[0] + one[1])
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.cert_store_stats()["x509_ca"] == 1


@pytest.mark.parametrize("key", ["login", "node_login", "ca"])
def test_the_files_are_for_a_broker_that_is_not_embedded(key):
    with pytest.raises(ConfigError, match=rf"broker\.{key} is for a broker that is not embedded"):
        config.build({"broker": {key: "/etc/x"}}, "file")
    with pytest.raises(ConfigError, match=rf"broker\.{key} is 'x'"):
        config.build({"broker": {key: "x", "embedded": False}}, "file")
