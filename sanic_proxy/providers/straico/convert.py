def request_body(fields, upstream_model):
    return {"model": upstream_model, "messages": fields["messages"]}


def completion(parsed, **k):
    parsed.setdefault("x_straico", {})
    parsed["model"] = k["model"]
    return parsed


def model_list(p):
    return p["data"]
