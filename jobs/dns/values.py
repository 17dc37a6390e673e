"""The value an expectation gives, in the one form in which it is compared; and why a value cannot be one."""

from __future__ import annotations

import ipaddress

from jobs.dns import names
from jobs.dns.records import caa, dkim, dmarc, mx, ns, spf_target, text, token


def normal(rdtype: str, value: str) -> str:
    """`value` as it is compared; ValueError if no record of that type could say it.

    | type    | value                                                                                   |
    |---------|-----------------------------------------------------------------------------------------|
    | TXT     | the text; quotes dropped, quoted strings joined, runs of white space one; case counts   |
    | CNAME   | the target                                                                              |
    | MX      | "mx.example.net", or "10 mx.example.net" where the preference counts                    |
    | A, AAAA | the address                                                                             |
    | TOKEN   | the token, "token=…" or bare: base32, 26 characters or more                             |
    | SPF     | "include:spf.example.net", "ip4:192.0.2.0/24" or "ip6:2001:db8::/32"                    |
    | DKIM    | the record "v=DKIM1; k=rsa; p=…", or the key in base64 alone (RSA)                      |
    | DMARC   | the least policy: "none", "quarantine" or "reject"                                      |
    | CAA     | the domain of the authority that shall be allowed: "ca.example"                         |
    | NS      | the name servers of the last check: "ns1.example.net ns2.example.net"                   |
    """
    value = value.strip()
    match rdtype:
        case "TXT":
            return text.not_empty(value)
        case "CNAME":
            return names.normal(value)
        case "A":
            return str(ipaddress.IPv4Address(value))
        case "AAAA":
            return str(ipaddress.IPv6Address(value))
        case "MX":
            return mx.normal(value)
        case "TOKEN":
            return token.normal(value)
        case "SPF":
            return spf_target.normal(value)
        case "DKIM":
            return dkim.normal(value)
        case "DMARC":
            return dmarc.normal(value)
        case "CAA":
            return caa.normal(value)
        case "NS":
            return ns.normal(value)
        case _:
            raise ValueError(f"{rdtype!r} is no type of record that can be expected")
