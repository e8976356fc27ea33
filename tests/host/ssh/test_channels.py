"""What is left out of SSH connections, and why that is safe."""

from asyncssh.encryption import encryption_needs_mac

from kohakuriver.host.services.ssh.algorithms import CIPHERS


def test_no_cipher_of_ours_needs_the_empty_packets_that_are_left_out() -> None:
    assert not any(encryption_needs_mac(cipher.encode()) for cipher in CIPHERS)
