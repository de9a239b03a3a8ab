"""The online loop: events or old days in, versions for servers out, judged before they are trained on."""
