"""The dns channel: is what a domain's owner was asked to publish there, or can we not tell?"""
