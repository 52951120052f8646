from django.contrib.auth.decorators import login_required
from django.shortcuts import get_object_or_404, render

from chat.models import Connection
from chat.tokens import decrypt_id, encrypt_id


@login_required
def index(request):
    connections = [
        {"other": connection.other(request.user), "id": encrypt_id(connection.pk)}
        for connection in Connection.of(request.user)
    ]
    return render(request, "chat/index.html", {"connections": connections})


@login_required
def room(request, connectionId):
    connection = get_object_or_404(Connection.of(request.user), pk=decrypt_id(connectionId))
    messages = [
        {"id": encrypt_id(message.pk), "user": message.sender.get_username(), "text": message.text}
        for message in connection.messages.select_related("sender").order_by("pk")
    ]
    context = {
        "other": connection.other(request.user),
        "data": {"connectionId": connectionId, "user": request.user.get_username(), "messages": messages},
    }
    return render(request, "chat/room.html", context)
